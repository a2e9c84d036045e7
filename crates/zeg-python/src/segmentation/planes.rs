//! Numbers for every pixel, which become an array of numpy without a copy.

use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{
    Element, PyArray, PyArray2, PyArrayMethods as _, PyUntypedArrayMethods as _,
    ndarray::{Array, Dim, Dimension, IntoDimension, Ix},
};
use pyo3::{prelude::*, sync::MutexExt as _};

use crate::errors::{Kind, exception};

/// One number for every pixel, row-major.
pub(super) enum Plane<T: Element> {
    /// Nobody has asked for the array yet.
    Values(Vec<T>),
    /// The array, which the user may change.
    Array(Py<PyArray2<T>>),
}

impl<T: Element + Copy> Plane<T> {
    /// Returns the array, `[height, width]`, which takes the place of the values.
    ///
    /// # Errors
    /// Returns an exception if numpy is not installed.
    pub(super) fn array<'py>(
        plane: &Mutex<Self>,
        py: Python<'py>,
        size: [usize; 2],
    ) -> PyResult<Bound<'py, PyArray2<T>>> {
        numpy(py)?;
        let mut plane = lock(plane, py);
        if let Self::Values(values) = &mut *plane {
            let values = std::mem::take(values);
            let array = from_rows(py, size, values)?;
            *plane = Self::Array(array.unbind());
        }
        match &*plane {
            Self::Array(array) => Ok(array.bind(py).clone()),
            Self::Values(_) => Err(changed(py)), // cannot happen
        }
    }

    /// Returns a copy of the numbers as they are now.
    ///
    /// # Errors
    /// Returns an exception if the user has given the array another shape.
    pub(super) fn copied(
        plane: &Mutex<Self>,
        py: Python<'_>,
        [height, width]: [usize; 2],
    ) -> PyResult<Vec<T>> {
        let plane = lock(plane, py);
        match &*plane {
            Self::Values(values) => Ok(values.clone()),
            Self::Array(array) => {
                let array = array.bind(py);
                if array.shape() != [height, width] {
                    return Err(changed(py));
                }
                let read = array.try_readonly().map_err(|_| changed(py))?;
                Ok(read.as_array().iter().copied().collect())
            }
        }
    }
}

fn changed(py: Python<'_>) -> PyErr {
    let message = "the array of this result has been given another shape";
    let hint = "change a copy of it: result.labels.copy()";
    exception(py, Kind::Settings, message, Some(hint))
}

/// Makes an array of values in memory order, without a copy.
pub(super) fn from_rows<T: Element, const N: usize>(
    py: Python<'_>,
    shape: [usize; N],
    values: Vec<T>,
) -> PyResult<Bound<'_, PyArray<T, Dim<[Ix; N]>>>>
where
    [Ix; N]: IntoDimension<Dim = Dim<[Ix; N]>>,
    Dim<[Ix; N]>: Dimension,
{
    let made = Array::from_shape_vec(shape, values).map_err(|error| {
        let message = format!("an array of the shape {shape:?}: {error}");
        exception(py, Kind::Internal, &message, None)
    })?;
    Ok(PyArray::from_owned_array(py, made))
}

/// Checks that numpy is installed.
///
/// # Errors
/// Returns an exception that says so.
pub(super) fn numpy(py: Python<'_>) -> PyResult<()> {
    py.import("numpy").map(drop).map_err(|error| {
        let made = exception(
            py,
            Kind::NotInstalled,
            "arrays need numpy, which cannot be imported",
            Some("`pip install numpy`; to_png(), to_coco() and areas work without it"),
        );
        made.set_cause(py, Some(error));
        made
    })
}

/// Locks without holding up the threads that have the lock and wait for the interpreter.
pub(super) fn lock<'a, T>(mutex: &'a Mutex<T>, py: Python<'_>) -> MutexGuard<'a, T> {
    mutex
        .lock_py_attached(py)
        .unwrap_or_else(PoisonError::into_inner)
}
