"""What acts: networks, action distributions and the normalisation of observations."""
