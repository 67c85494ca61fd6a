//! Numbers from the IANA IKEv2 registries as types: any value may arrive, known ones have names.

/// Declares a newtype over an integer with a constant for each known value. `Debug` and `Display`
/// print the name, or the number where there is none.
macro_rules! code_points {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($int:ty) {
            $( $(#[$value_meta:meta])* $value_name:ident = $value:expr; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $( $(#[$value_meta])* pub const $value_name: Self = Self($value); )*

            /// The name that the registry gives this value, if it is one this crate knows.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some(stringify!($value_name)), )*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

pub(crate) use code_points;

/// Stands in `Debug` output for bytes that would only make a log longer.
pub(crate) struct Octets<'a>(pub(crate) &'a [u8]);

impl core::fmt::Debug for Octets<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "<{} octets>", self.0.len())
    }
}
