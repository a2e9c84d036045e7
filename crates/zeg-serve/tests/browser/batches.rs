//! Many tasks of Label Studio in one request: it sends a whole selection at once and waits for 100 seconds. After a single
//! result it asks for the tasks one by one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zeg_serve::{LabelStudioSettings, ServeConfig};

use crate::backend::{CONFIG, image, predict};
use crate::served::Served;

/// Serves the image at every address after a time in milliseconds, the last part of the address; counts the calls.
fn slow_studio() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut lines = lines.map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = first.split(' ').nth(1).unwrap_or_default();
                let time = path.rsplit('/').next().unwrap_or_default().parse();
                std::thread::sleep(Duration::from_millis(time.unwrap_or_default()));
                let body = std::fs::read(image()).unwrap();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body));
            });
        }
    });
    (address, count)
}

/// Starts a server that fetches from an address, and answers several tasks within half of a time.
fn served(studio: &str, request_time: Duration) -> Served {
    Served::with(ServeConfig {
        request_time,
        label_studio: LabelStudioSettings {
            address: Some(studio.parse().unwrap()),
            key: None,
        },
        ..ServeConfig::default()
    })
}

fn tasks(milliseconds: &[u64]) -> Value {
    let task = |time| json!({ "id": 1, "data": { "image": format!("/data/upload/1/{time}") } });
    milliseconds.iter().map(task).collect()
}

fn count(answer: &Value) -> usize {
    answer["results"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_batch_that_would_take_too_long_is_asked_for_one_by_one() {
    let (studio, calls) = slow_studio();
    let served = served(&studio, Duration::from_secs(20));
    // Twelve seconds would be in time for the server, and not in the half that it takes for several tasks.
    let (status, answer) = predict(&served, tasks(&[1200; 10]), CONFIG);
    assert_eq!((status, count(&answer)), (200, 1), "{answer}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let reason = answer["failed"]["detail"].as_str().unwrap();
    assert!(reason.contains("10 tasks would take"), "{reason}");
    let (status, answer) = predict(&served, tasks(&[0; 3]), CONFIG);
    assert_eq!((status, count(&answer)), (200, 3), "{answer}");
}

#[test]
fn a_slow_image_of_a_batch_does_not_lose_the_others() {
    let (studio, _) = slow_studio();
    let served = served(&studio, Duration::from_secs(6));
    let started = Instant::now();
    let (status, answer) = predict(&served, tasks(&[10_000, 0]), CONFIG);
    assert_eq!((status, count(&answer)), (200, 1), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(6));
    // Alone it has the whole time, and its failure is told.
    let (status, answer) = predict(&served, tasks(&[4000]), CONFIG);
    assert_eq!((status, count(&answer)), (200, 1), "{answer}");
    let (status, answer) = predict(&served, tasks(&[10_000]), CONFIG);
    assert_eq!(
        (status, &answer["code"]),
        (503, &json!("timeout")),
        "{answer}"
    );
}

#[test]
fn a_selection_of_more_tasks_than_are_predicted_together_is_not_refused() {
    let (studio, calls) = slow_studio();
    let served = served(&studio, Duration::from_mins(1));
    let (status, answer) = predict(&served, tasks(&[0; 1001]), CONFIG);
    assert_eq!((status, count(&answer)), (200, 1), "{answer}");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let reason = answer["failed"]["detail"].as_str().unwrap();
    assert!(reason.contains("1001 tasks"), "{reason}");
}
