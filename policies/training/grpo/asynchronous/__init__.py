"""Groups that are generated while the weights are updated."""
