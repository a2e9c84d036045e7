//! The end of the server.

use std::{
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use zeg_serve::{Ending, ServeConfig};

use crate::{
    client::{Request, Server},
    limits::{narrow, slow},
};

#[test]
fn requests_in_progress_are_answered_and_new_connections_refused() {
    let server = narrow(4);
    let address = server.address;
    thread::scope(|scope| {
        let running = scope.spawn(|| server.send(&slow("labels")));
        server.wait_for(|[_, running]| running == 1);
        let waiting = scope.spawn(|| server.send(&slow("labels")));
        server.wait_for(|[waiting, _]| waiting == 1);
        server.ask_to_stop();
        thread::sleep(Duration::from_millis(100));
        assert!(TcpStream::connect(address).is_err());
        let (first, second) = (running.join().unwrap(), waiting.join().unwrap());
        assert_eq!((first.status, second.status), (200, 200));
        assert_eq!(first.body, second.body);
    });
    assert_eq!(server.ended(), Ending::Finished);
}

#[test]
fn idle_connections_end_at_once() {
    let server = Server::usual();
    let _silent = server.connect();
    let mut kept = server.connect();
    let request = Request::new("GET", "/healthz").header("Connection", "keep-alive");
    kept.write_all(&request.bytes()).unwrap();
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    server.ask_to_stop();
    assert_eq!(server.ended(), Ending::Finished);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_sender_that_does_not_end_is_cut_off() {
    let server = Server::start(ServeConfig {
        stop_time: Duration::from_millis(500),
        ..ServeConfig::default()
    });
    let mut slow = server.connect();
    let head = Request::post("/v1/segment")
        .header("Content-Type", "application/json")
        .header("Content-Length", "1000")
        .head();
    slow.write_all(head.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    server.ask_to_stop();
    assert_eq!(server.ended(), Ending::CutOff(1));
    assert!(started.elapsed() < Duration::from_secs(3));
}
