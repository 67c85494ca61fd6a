//! Every decision of epochgate, pure.
