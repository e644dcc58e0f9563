//! What runs only during a tenure, and the way to reach it.
