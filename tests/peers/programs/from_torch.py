"""Takes modules of PyTorch, trains them with onnxtape, and gives the weights back; prints JSON."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "reference"))

import make_torch_models as torch_models
import numpy as np
import torch
from torch.nn import functional

import onnxtape as ot


def check(name: str) -> dict[str, Any]:
    """How far apart the two are before, while and after training."""
    build, (shape, _), _ = torch_models.MODELS[name]
    torch.manual_seed(0)
    module = build().eval()
    tokens = torch_models._kind(shape) == "tokens"
    x = torch.randint(0, 11, shape) if tokens else torch.randn(shape)
    output = module(x)
    target = torch.randn_like(output)
    model = ot.from_torch(module, x)
    before = np.abs(np.asarray(model(x.numpy())) - output.detach().numpy()).max()

    optimizer = ot.optimizers.Adam(1e-3, epsilon=1e-8)

    @ot.function(fallback="error")
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    ours = [float(step(x.numpy(), target.numpy())) for _ in range(5)]
    torch_optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    theirs = []
    for _ in range(5):
        torch_optimizer.zero_grad()
        loss = functional.mse_loss(module(x), target)
        loss.backward()
        torch_optimizer.step()
        theirs.append(loss.item())
    state = model.to_torch_state_dict()
    trained = module.state_dict()
    module.load_state_dict(state)
    after = np.abs(np.asarray(model(x.numpy())) - module(x).detach().numpy()).max()
    return {
        "before": float(before),
        "losses": [ours, theirs],
        "after": float(after),
        "names": sorted(state) == sorted(trained),
        "weights": max(
            float((state[k].double() - trained[k].double()).abs().max()) for k in trained
        ),
        "other_batch": list(model(x.numpy()[:1]).shape) == [1, *output.shape[1:]],
    }


if __name__ == "__main__":
    json.dump({name: check(name) for name in sys.argv[1:]}, sys.stdout)
