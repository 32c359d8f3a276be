"""What a model costs: counted by hand."""

import pytest
import torch
from torch import nn

from engine.model.cost import model_cost
from swin import swin_tiny


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_products_and_convolutions_are_counted_twice_and_all_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 10), nn.Dropout())
    model[0].weight.requires_grad_(False)
    model[2].eval()
    cost = model_cost(model, lambda: (torch.zeros(1, 3, 4, 4),))
    assert cost == {"parameters": 216 + 1290, "trainable": 1290, "flops": 2 * 16 * 216 + 2 * 1280}
    assert model.training and model[0].training and not model[2].training, "modes are as they were"


def test_attention_is_counted_on_a_cpu_too() -> None:
    assert model_cost(Attention(), lambda: (torch.zeros(1, 2, 5, 7),))["flops"] == 2 * 2 * (2 * 5 * 5 * 7)


def test_swin_tiny_costs_what_its_paper_says() -> None:
    cost = model_cost(swin_tiny(), lambda: (torch.zeros(1, 3, 224, 224),))
    assert cost["parameters"] == 28_288_354
    assert cost["flops"] == pytest.approx(2 * 4.5e9, rel=0.01)


def test_a_model_that_cannot_be_counted_says_so_and_draws_no_random_numbers() -> None:
    def broken() -> tuple[torch.Tensor, ...]:
        raise NotImplementedError

    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    state = torch.get_rng_state()
    assert model_cost(model, broken) == {"parameters": 6, "trainable": 6, "flops": None}
    assert model_cost(model, lambda: (torch.zeros(1, 2),))["flops"] == 8
    assert (torch.get_rng_state() == state).all()
