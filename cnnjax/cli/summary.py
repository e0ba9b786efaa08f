"""The `summary` command."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnnjax.cli.formats import TEXT, Columns, Formatted
from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Summary:
    """Print a network's layers, output shapes and parameters, as Keras does.

    Example: cnnjax summary --model lenet-swish
    """

    model: str = "keras-cnn"
    """keras-cnn, lenet-swish, or a module of your own as package.module:NAME."""
    image_shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width and channels of the images."""
    output: Formatted = TEXT

    def __call__(self) -> None:
        """Print the table and the totals."""
        from cnnjax.deploy.layers import layers
        from cnnjax.deploy.modules import modules
        from cnnjax.models import ConvNet
        from cnnjax.runs.building import model_named

        if min(self.image_shape) < 1:
            raise ArgumentError(f"--image-shape {self.image_shape} must have three numbers above 0")
        model = model_named(self.model)
        if isinstance(model, ConvNet):
            walk = layers(model, self.image_shape)
            rows = [(row.name, row.kind, row.shape, row.parameters, 0) for row in walk]
        else:
            rows = modules(model, self.image_shape)
        records = [
            {
                "layer": name,
                "type": kind,
                "output_shape": shape,
                "parameters": trained + fixed,
                "trainable": trained,
            }
            for name, kind, shape, trained, fixed in rows
        ]
        if not self.output.alone:
            print(f'Model: "{self.model}"')
        self.output.table(records, COLUMNS)
        if self.output.alone:
            return
        total, trainable = (sum(record[name] for record in records) for name in ("parameters", "trainable"))
        totals = ("Total", total), ("Trainable", trainable), ("Non-trainable", total - trainable)
        for label, number in totals:
            print(f"{label} params: {number:,}")


def _shape(shape: Sequence[int] | None) -> str:
    """Return a shape as Keras prints it; None is not known."""
    return f"({'?' if shape is None else ', '.join(['None', *map(str, shape)])})"


COLUMNS: Columns = {
    "Layer (type)": lambda row: f"{row['layer']} ({row['type']})",
    "Output Shape": lambda row: _shape(row["output_shape"]),
    "Param #": lambda row: f"{row['parameters']:,}",
}
