"""The command `export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cnnjax.cli.runner import RunDirectory


@dataclass(frozen=True)
class Export:
    """Write a trained network to one file that needs no cnnjax: images in [0, 1] in, logits out.

    Images are float32 (n, 28, 28, 1) with n left open. A stablehlo file is run with
    jax.export.deserialize(content).call(images) on CPU, CUDA or TPU; an onnx file by whatever runs ONNX, and
    the extra cnnjax[onnx] writes it. The file's logits are compared with the network's before it is written.

    Example: cnnjax export runs/keras-cnn-seed0 --format onnx --out digits.onnx
    """

    run: RunDirectory
    """Run directory, the --out of a train command."""
    format: Literal["stablehlo", "onnx"] = "stablehlo"
    """Kind of file."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: model.stablehlo or model.onnx in RUN)"),
    ] = None
    """The file; one that is there is replaced."""

    def __call__(self) -> None:
        """Write the file and say how well it agrees."""
        from cnnjax import files
        from cnnjax.deploy import export
        from cnnjax.deploy.predict import told, trained

        network = trained(self.run)
        exported = export.export(network, self.format)
        out = self.out or self.run / f"model.{self.format}"
        files.write_bytes(out, exported.content)
        apart = f"differ from the network's by at most {exported.difference:.0e} of the largest"
        agreement = apart if exported.difference else "equal the network's"
        print(f"{told(network)}: {out}, {len(exported.content):,} bytes; its logits {agreement}")
