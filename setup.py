"""Installs the suite from a clone: ``pip install -e .`` (or ``.[dev]`` to run its tests)."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="swin-hpc",
    version="0.1.0",
    description="Distributed training suite for computer vision on Slurm clusters: Swin and SSD on PyTorch",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    package_dir={"": "."},  # an editable install is then one line in a .pth file, which editors and type checkers read
    packages=find_packages(
        include=[
            f"{p}{s}"
            for p in ("swin", "engine", "classification", "detection", "diffusion", "tools")
            for s in ("", ".*")
        ]
    ),
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.31",
        "numpy>=1.26",
        "pillow>=10.2,<13",  # timm 1.0.31's RandAugment raises in `posterize` under Pillow 13
        "simplejpeg>=1.8",
        "opencv-python-headless>=4.10.0.84",
        "msgspec>=0.18",
        "pydantic>=2.11",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "tensorboard>=2.17",
        "tqdm>=4.66",
        "submitit>=1.5.4",
        "pycocotools>=2.0.7",
        "faster-coco-eval>=1.6",
        "imagehash>=4.3.1",  # tools.check
        "optuna>=4.0",  # tools.search
    ],
    extras_require={
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "diffusers>=0.37",
            "torchmetrics>=1.4",
            "ruff>=0.6",
            "mypy>=1.10",
            "types-PyYAML",
        ],
        "export": ["onnx>=1.23,<2", "onnxruntime>=1.32,<2", "onnxscript>=0.7.2,<1", "transformers>=5.24,<6"],
        "tflite": ["litert-torch>=0.10,<0.11", "ai-edge-litert>=2.3,<3"],  # in an environment of its own
        "notebooks": [
            "jupytext>=1.16,<2",
            "nbclient>=0.10,<1",
            "nbformat>=5.9,<6",
            "ipykernel>=6.29,<8",
            "pandas>=2.2.3,<4",
        ],
        "keras": ["keras>=3.15,<4", "h5py>=3.16,<4"],
    },
)
