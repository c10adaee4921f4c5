//! Watches, index, queue, and the executor that carries decisions out.
