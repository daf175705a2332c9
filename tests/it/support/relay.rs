//! What stands between a service and Postgres: passes messages on, and at a chosen one cuts the connection or falls silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How much of the chosen message is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Nothing,
    Half,
    All,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The connection ends.
    Cut,
    /// It stays, and nothing comes any more, either way.
    Silence,
}

/// Which connections are counted and harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those over which deliveries have been written before.
    Writers,
    /// Those over which a send has been put on record.
    Sends,
    /// Those that are opened from now on, from their first byte.
    New,
}

/// At which message what happens: counted from 0, each way by itself.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub whose: Whose,
    pub way: Way,
    pub message: usize,
    pub part: Part,
    pub harm: Harm,
}

/// A relay to one server at a time.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    fault: Mutex<Option<Fault>>,
    /// Counts what was asked for, so that each counts anew.
    turn: AtomicUsize,
    /// The most messages that a counted connection has passed on in this turn, each way.
    passed: [AtomicUsize; 2],
    hit: AtomicBool,
    /// What ends all connections of before.
    life: watch::Sender<usize>,
}

impl Relay {
    /// To a server on this machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(([127, 0, 0, 1], port).into()),
            fault: Mutex::new(None),
            turn: AtomicUsize::new(0),
            passed: Default::default(),
            hit: AtomicBool::new(false),
            life: watch::Sender::new(0),
        });
        let ours = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(Arc::clone(&ours), client));
            }
        });
        Self { address, shared }
    }

    /// The port that it listens at.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections, and leads new ones to another server.
    pub fn lead_to(&self, port: u16) {
        *self.shared.target.lock().unwrap() = ([127, 0, 0, 1], port).into();
        self.cut_all();
    }

    /// Ends all connections.
    pub fn cut_all(&self) {
        self.shared.life.send_modify(|life| *life += 1);
    }

    /// Counts anew, and harms nobody.
    pub fn count(&self) {
        self.begin(None);
    }

    /// Counts anew the messages of such connections, and harms nobody.
    pub fn count_of(&self, whose: Whose) {
        let (way, part, harm) = (Way::ToServer, Part::Nothing, Harm::Cut);
        self.begin(Some(Fault { whose, way, message: usize::MAX, part, harm }));
    }

    /// Counts anew, up to the fault.
    pub fn arm(&self, fault: Fault) {
        self.begin(Some(fault));
    }

    fn begin(&self, fault: Option<Fault>) {
        let mut place = self.shared.fault.lock().unwrap();
        *place = fault;
        self.shared.hit.store(false, Ordering::SeqCst);
        self.shared.passed.iter().for_each(|passed| passed.store(0, Ordering::SeqCst));
        self.shared.turn.fetch_add(1, Ordering::SeqCst);
    }

    /// How many messages were passed on, to the server and to the client.
    pub fn passed(&self) -> [usize; 2] {
        self.shared.passed.each_ref().map(|passed| passed.load(Ordering::SeqCst))
    }

    /// Whether the fault was met.
    pub fn was_hit(&self) -> bool {
        self.shared.hit.load(Ordering::SeqCst)
    }

    /// No fault any more, and none of the connections that met one.
    pub fn heal(&self) {
        self.count();
        self.cut_all();
    }
}

/// One connection.
struct Passage {
    shared: Arc<Shared>,
    writes: AtomicBool,
    sends: AtomicBool,
    opened_in: usize,
    counted: [(AtomicUsize, AtomicUsize); 2],
    silent: AtomicBool,
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let mut life = shared.life.subscribe();
    life.mark_unchanged();
    let target = *shared.target.lock().unwrap();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let opened_in = shared.turn.load(Ordering::SeqCst);
    let passage = Passage {
        shared,
        writes: false.into(),
        sends: false.into(),
        opened_in,
        counted: Default::default(),
        silent: false.into(),
    };
    tokio::select! {
        () = passage.pass(Way::ToServer, from_client, to_server) => {}
        () = passage.pass(Way::ToClient, from_server, to_client) => {}
        _ = life.changed() => {}
    }
}

impl Passage {
    /// Passes messages on until an end, or for ever where there is to be silence.
    async fn pass(&self, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        // A client's first message has no letter.
        let mut letter = usize::from(way == Way::ToClient);
        let mut bytes = Vec::new();
        loop {
            while let Some(length) = whole(&bytes, letter) {
                let message: Vec<u8> = bytes.drain(..length).collect();
                letter = 1;
                let part = self.part(way, &message);
                if self.silent.load(Ordering::SeqCst) && part.is_none() {
                    std::future::pending::<()>().await;
                }
                let much = match part {
                    None | Some((Part::All, _)) => message.len(),
                    Some((Part::Half, _)) => message.len() / 2,
                    Some((Part::Nothing, _)) => 0,
                };
                if to.write_all(&message[..much]).await.is_err() {
                    return;
                }
                match part {
                    None => {}
                    Some((_, Harm::Cut)) => return,
                    Some((_, Harm::Silence)) => std::future::pending::<()>().await,
                }
            }
            if !from.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    }

    /// Counts a message, and says what is to be done with it if it is the one.
    fn part(&self, way: Way, message: &[u8]) -> Option<(Part, Harm)> {
        const WRITES: [&[u8]; 2] = [b"INTO deliveries", b"INTO quarantine"];
        let says = |words: &[u8]| message.windows(words.len()).any(|found| found == words);
        if way == Way::ToServer && WRITES.into_iter().any(says) {
            self.writes.store(true, Ordering::SeqCst);
        }
        if way == Way::ToServer && says(b"INTO sends") {
            self.sends.store(true, Ordering::SeqCst);
        }
        let fault = self.shared.fault.lock().unwrap();
        let turn = self.shared.turn.load(Ordering::SeqCst);
        let is_counted = match fault.map_or(Whose::Writers, |fault| fault.whose) {
            Whose::Writers => self.writes.load(Ordering::SeqCst),
            Whose::Sends => self.sends.load(Ordering::SeqCst),
            Whose::New => self.opened_in == turn,
        };
        if !is_counted {
            return None;
        }
        let (counted_in, counted) = &self.counted[way as usize];
        if counted_in.swap(turn, Ordering::SeqCst) != turn {
            counted.store(0, Ordering::SeqCst);
        }
        let number = counted.fetch_add(1, Ordering::SeqCst);
        self.shared.passed[way as usize].fetch_max(number + 1, Ordering::SeqCst);
        let fault = (*fault).filter(|fault| fault.way == way && fault.message == number)?;
        self.shared.hit.store(true, Ordering::SeqCst);
        self.silent.store(fault.harm == Harm::Silence, Ordering::SeqCst);
        Some((fault.part, fault.harm))
    }
}

/// The length of the first message, if all of it is there; so many bytes come before its length.
fn whole(bytes: &[u8], letter: usize) -> Option<usize> {
    let length = bytes.get(letter..letter + 4)?;
    let length = letter + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    (bytes.len() >= length).then_some(length)
}
