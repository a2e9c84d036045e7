//! Trains zero-shot segmentation models: losses, optimiser, schedule, trainer and checkpoints.
//!
//! A sample takes this path: batch (from `zeg-data`, or [`features`] of a frozen encoder) → [`supervision`] →
//! [`targets`] → model → [`objective`] (called by the method's criterion) → gradients → [`optimizer`] with the learning
//! rate of the [`schedule`] → [`checkpoint`]. The [`trainer`] connects these steps; an [`experiment`] file configures
//! them. A new method adds its loss as a [`recipe`].
//!
//! Reading an experiment file and asking for its learning rates:
//!
//! ```no_run
//! use zeg_model::methods::Methods;
//! use zeg_train::{experiment::Experiment, recipe::Recipes};
//!
//! # fn main() -> Result<(), zeg_train::TrainError> {
//! let path = "configs/voc12/zegclip-inductive.toml".as_ref();
//! let changes = ["training.batch=4".to_owned()]; // as with `--set` on the command line
//! let file = Experiment::open(path, &changes, &Methods::default(), &Recipes::default())?;
//! let training = &file.experiment.training;
//! for step in [0, training.steps / 2, training.steps - 1] {
//!     println!("step {step}: learning rate {:.1e}", training.schedule.at(step, training.steps));
//! }
//! # Ok(())
//! # }
//! ```

pub mod batch;
pub mod checkpoint;
mod criterion;
mod error;
pub mod experiment;
pub mod features;
mod gradient_sum;
pub mod labels;
mod limits;
pub mod loss;
pub mod mask_loss;
pub mod methods;
pub mod objective;
pub mod optimizer;
pub mod pretrain;
pub mod pretrain_checkpoint;
pub mod pretraining;
pub mod pseudo_labels;
pub mod recipe;
pub mod schedule;
pub mod set_loss;
pub mod setting;
pub mod supervision;
pub mod targets;
pub mod trainer;
pub mod whole_batch;

pub use error::TrainError;
