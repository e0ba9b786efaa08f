"""The `export` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cnnjax.cli.runner import RunDirectory, shown


@dataclass(frozen=True)
class Export:
    """Export a trained network to a StableHLO or ONNX file.

    The file maps float32 images (n, height, width, channels) in [0, 1] to
    logits, for any n.
    Its logits are compared with the network's before it is written. Load
    StableHLO with jax.export.deserialize(content).call(images), on CPU, CUDA or
    TPU. Writing ONNX needs cnnjax[onnx].

    Example: cnnjax export runs/keras-cnn-seed0 --format onnx --out digits.onnx
    """

    run: RunDirectory
    format: Literal["stablehlo", "onnx"] = "stablehlo"
    """File format."""
    out: Annotated[Path | None, shown("FILE", "model.stablehlo or model.onnx in RUN")] = None
    """File to write; an existing one is replaced."""

    def __call__(self) -> None:
        """Write the file and print how closely its logits agree."""
        from cnnjax import files
        from cnnjax.deploy import export
        from cnnjax.deploy.predict import description, trained
        from cnnjax.report import say
        from cnnjax.runs.run_directory import list_made

        network = trained(self.run, say)
        exported = export.export(network, self.format)
        out = self.out or self.run / f"model.{self.format}"
        files.write_bytes(out, exported.content)
        list_made(out)
        apart = f"differ from the network's by at most {exported.difference:.0e} of the largest"
        agreement = apart if exported.difference else "equal the network's"
        say(f"{description(network)}: {out}, {len(exported.content):,} bytes; its logits {agreement}")
