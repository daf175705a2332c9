//! TLS to Postgres, as a managed one asks for it.

use std::{net::TcpStream, os::fd::OwnedFd, process::Command};

use nexo_receiver::store::open::{Location, open};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::support::{
    cluster::{Cluster, location, run},
    database::{Database, given, postgres_options, server_url},
    process::Process,
    provider::event,
    sender::Sender,
    until::until,
};

async fn connects(parameters: &str) -> Result<(), String> {
    let url = server_url().replace("127.0.0.1", "localhost");
    let location = Location::Postgres(postgres_options(&format!("{url}?{parameters}")));
    open(&location).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_whose_certificate_is_good_is_connected_to() {
    let ca = given("TEST_DATABASE_CA");
    for mode in ["require", "verify-ca", "verify-full"] {
        connects(&format!("sslmode={mode}&sslrootcert={ca}"))
            .await
            .unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_knows_is_refused() {
    for mode in ["verify-ca", "verify-full"] {
        let error = connects(&format!("sslmode={mode}")).await.unwrap_err();
        assert!(error.contains("certificate"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_that_can_not_be_read_is_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let openssl = || Command::new("openssl");
    std::fs::write(file("cnf"), "[req]\ndistinguished_name = name\n[name]\n").unwrap();
    let mut request = openssl();
    request.args(["req", "-new", "-noenc", "-subj", "/CN=localhost", "-newkey", "ec"]);
    request.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-config"]).arg(file("cnf"));
    run(request.arg("-keyout").arg(file("key")).arg("-out").arg(file("csr")));
    // Without extensions it is of version 1.
    let mut sign = openssl();
    sign.args(["x509", "-req", "-days", "2", "-in"]).arg(file("csr")).arg("-signkey").arg(file("key"));
    run(sign.arg("-out").arg(file("crt")));
    let text = openssl().args(["x509", "-noout", "-text", "-in"]).arg(file("crt")).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("Version: 1 "), "{text:?}");

    let cluster = Cluster::start();
    cluster.serve_tls(&file("key"), &file("crt")).await;
    for mode in ["prefer", "require"] {
        let url = format!("{}?sslmode={mode}", cluster.url("postgres"));
        // It takes the certificate a moment after it is told to.
        until(async || {
            let error = open(&location(&url)).await.map(drop).err().map(|error| error.to_string());
            error.is_some_and(|error| {
                assert!(error.contains("X.509 version 1"), "{error}");
                assert!(error.contains("sslmode=disable"), "{error}");
                true
            })
        })
        .await;
    }
    open(&location(&format!("{}?sslmode=disable", cluster.url("postgres")))).await.unwrap();
}

/// Of each TCP connection that a process has, whether it sends what is small at once.
fn connections(process: &Process) -> Vec<bool> {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let copies = numbers.filter_map(|entry| {
        let number = entry.unwrap().file_name().to_str()?.parse().ok()?;
        // One that is closed by now is no matter.
        pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()).ok()
    });
    let streams = copies.map(|copy: OwnedFd| TcpStream::from(copy));
    // One that only listens has no other side.
    streams.filter_map(|stream| stream.peer_addr().and(stream.nodelay()).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_waits_for_an_acknowledgement_before_it_sends_on() {
    let database = Database::on_postgres().await;
    let process = Process::serve(&database);
    let mut sender = Sender::connect(process.address).await;
    assert_eq!(sender.post(&event("a", "delivered")).await.short(), (200, "ok"));
    // Ours and the database's at the least, and none that has been opened just now.
    until(async || {
        let connections = connections(&process);
        connections.len() >= 2 && connections.iter().all(|at_once| *at_once)
    })
    .await;
    assert!(process.terminate().success());
}
