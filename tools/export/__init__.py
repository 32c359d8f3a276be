"""Hands trained models on: to ONNX, torch's own files, TFLite, timm, transformers and Keras, each checked before kept."""
