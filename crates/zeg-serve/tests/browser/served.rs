//! A server with MiniCLIP for a test, on a free port of this machine.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use zeg::Segmenter;
use zeg::model::inference::Inference;
use zeg_serve::{
    Ending, LabelStudioSettings, Models, ServeConfig, ServedModel, Stop, Token, serve,
};

/// Time in which the model must be loaded.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server, which stops when it is dropped.
pub(crate) struct Served {
    stop: Stop,
    address: SocketAddr,
    thread: Option<JoinHandle<anyhow::Result<Ending>>>,
}

impl Served {
    /// Starts a server that anybody may call.
    pub(crate) fn start() -> Self {
        Self::with(ServeConfig::default())
    }

    /// Starts a server that wants a token.
    pub(crate) fn with_token(token: &str) -> Self {
        Self::with(ServeConfig {
            token: Some(Token::new(token).unwrap()),
            ..ServeConfig::default()
        })
    }

    /// Starts a server that fetches images from an address.
    pub(crate) fn for_studio(address: &str, key: Option<&str>) -> Self {
        Self::with(ServeConfig {
            label_studio: LabelStudioSettings {
                address: Some(address.parse().unwrap()),
                key: key.map(str::to_owned),
            },
            ..ServeConfig::default()
        })
    }

    /// Starts a server with MiniCLIP as it is.
    pub(crate) fn with(config: ServeConfig) -> Self {
        Self::with_settings(config, |_| {})
    }

    /// Starts a server.
    ///
    /// - `change`: changes the settings for inference
    pub(crate) fn with_settings(
        config: ServeConfig,
        change: impl FnOnce(&mut Inference) + Send + 'static,
    ) -> Self {
        let config = ServeConfig {
            stop_time: Duration::from_secs(5),
            ..config
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stop = Stop::default();
        let (sender, receiver) = mpsc::channel();
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let load = || {
                let mut segmenter = Segmenter::load("mini".as_ref())?;
                segmenter.change_inference(|inference| {
                    change(inference);
                    anyhow::Ok(())
                })?;
                Ok(Models::new(vec![ServedModel::new("mini", segmenter)])?)
            };
            let ready = move |address, _: &Models| Ok(sender.send(address)?);
            serve(config, listener, load, ready, &stopping)
        });
        Self {
            stop,
            address: receiver.recv_timeout(PATIENCE).unwrap(),
            thread: Some(thread),
        }
    }

    /// Returns its address without a slash at the end.
    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // A failed test must not end in a second panic.
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}
