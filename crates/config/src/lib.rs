//! The configuration file: text to settings, or errors with a caret.
