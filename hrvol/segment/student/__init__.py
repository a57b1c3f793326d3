"""Students: small convolutional networks that predict what a slower model, their teacher, predicts."""
