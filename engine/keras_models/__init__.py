"""Models of keras.applications as native modules, equal layer by layer, and their weights from Keras's files."""
