//! Behind a real nginx and a real HAProxy: nothing gets in that would not without them, what is signed does, and whose
//! request it was is believed only of a proxy that is trusted.

use std::{
    fs::{self, File},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use super::hostile::{assert_refused, exchange};
use crate::support::{
    database::Database,
    oddities::oddities,
    process::{Logged, Process, Setup, free_port},
    provider::{event, head},
    sender::Sender,
    until::until,
};

/// A proxy; ended when dropped.
struct Proxy {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    async fn nginx(behind: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let (port, place) = (free_port(), folder.path().display().to_string());
        let config = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/errors; events {{}}
            http {{
                access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
                fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
                upstream receiver {{ server {behind}; keepalive 4; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://receiver;
                        proxy_http_version 1.1;
                        proxy_set_header Connection \"\";
                        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    }}
                }}
            }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p", &place, "-c", "nginx.conf"]);
        Self::start(command, port, folder).await
    }

    async fn haproxy(behind: SocketAddr) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let config = format!(
            "defaults\n mode http\n option forwardfor\n timeout connect 5s\n timeout client 5s\n timeout server 15s\n \
             http-reuse always\nfrontend in\n bind 127.0.0.1:{port}\n default_backend receiver\n\
             backend receiver\n server one {behind}\n"
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-q", "-db", "-f"]).arg(file);
        Self::start(command, port, folder).await
    }

    async fn start(mut command: Command, port: u16, folder: TempDir) -> Self {
        let errors = File::create(folder.path().join("said")).unwrap();
        let process =
            command.stdout(Stdio::null()).stderr(errors).spawn().expect("tests/run makes sure of it");
        let proxy = Self { process, address: ([127, 0, 0, 1], port).into(), _folder: folder };
        until(async || TcpStream::connect(proxy.address).await.is_ok()).await;
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// From another of this machine's addresses than the proxy's.
async fn connect_from_afar(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whom the log names for a forged call that says that it comes from somewhere else.
async fn named(database: &Database, trusted: &str, proxy: impl AsyncFnOnce(SocketAddr) -> Proxy) -> String {
    let logged = Logged::serve(database, vec![("SERVER_TRUSTED_PROXIES", trusted.to_owned())]);
    let proxy = proxy(logged.process.address).await;
    let forged =
        head(1, "sha256=00").replace("host: test", "host: test\r\nx-forwarded-for: 203.0.113.9") + "x";
    let answer = exchange(&mut connect_from_afar(proxy.address).await, forged.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let log = logged.terminate().await;
    let (_, rest) = log.split_once("\"client\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// After each oddity a signed event goes through the same proxy: if something of the oddity was left in a connection of
/// the proxy's, it would be the event's misfortune.
async fn nothing_odd_gets_through(database: &Database, proxy: impl AsyncFnOnce(SocketAddr) -> Proxy) {
    let environment = vec![("LIMITS_BODY_SECONDS", "2".to_owned()), ("LIMITS_HEAD_SECONDS", "2".to_owned())];
    let setup = Setup { environment, ..Setup::default() };
    let process = Process::serve_with(&database.environment(), setup);
    let proxy = proxy(process.address).await;
    let all = oddities();
    for (n, (name, bytes)) in all.iter().enumerate() {
        let mut stream = connect_from_afar(proxy.address).await;
        let answer = exchange(&mut stream, bytes).await;
        assert_refused(name, &answer);
        let mut sender = Sender::connect(proxy.address).await;
        let reply = sender.post(&event(&format!("after-{n}"), "delivered")).await;
        assert_eq!(reply.short(), (200, "ok"), "after {name}");
    }
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, i64::try_from(all.len()).unwrap());
    assert_eq!(database.number("SELECT count(*) FROM quarantine").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_odd_gets_through_nginx() {
    nothing_odd_gets_through(&Database::on_sqlite().await, Proxy::nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_odd_gets_through_haproxy() {
    nothing_odd_gets_through(&Database::on_sqlite().await, Proxy::haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_word_counts_only_where_it_is_trusted() {
    let database = Database::on_sqlite().await;
    for (trusted, client) in [("none", "127.0.0.1"), ("127.0.0.1", "127.0.0.2"), ("10.0.0.0/8", "127.0.0.1")]
    {
        assert_eq!(named(&database, trusted, Proxy::nginx).await, client, "nginx, trusted: {trusted}");
        assert_eq!(named(&database, trusted, Proxy::haproxy).await, client, "HAProxy, trusted: {trusted}");
    }
    // Who trusts everybody is told what anybody says.
    assert_eq!(named(&database, "127.0.0.0/8", Proxy::nginx).await, "203.0.113.9");
}
