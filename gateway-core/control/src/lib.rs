//! The central plane: signing service and distribution of configuration
