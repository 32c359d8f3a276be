"""Hands trained models on: ONNX, torch's own files, TFLite, timm, transformers and Keras; checked before kept."""
