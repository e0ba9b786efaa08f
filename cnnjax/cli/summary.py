"""The `summary` command."""

from dataclasses import dataclass

from rich.table import Table

from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Summary:
    """Print a network's layers, output shapes and parameters, as Keras does.

    Example: cnnjax summary --model lenet-swish
    """

    model: str = "keras-cnn"
    """keras-cnn, lenet-swish, or a ConvNet of your own as package.module:NAME."""

    def __call__(self) -> None:
        """Print the table and the totals."""
        from cnnjax.deploy.layers import layers
        from cnnjax.models import ConvNet
        from cnnjax.report import console
        from cnnjax.runs.recipe import model_named

        model = model_named(self.model)
        if not isinstance(model, ConvNet):
            raise ArgumentError(f"{self.model} is no ConvNet; print flax.linen.tabulate(model, key)(images)")
        rows = layers(model)
        table = Table("Layer (type)", "Output Shape", "Param #", title=f'Model: "{self.model}"')
        table.columns[2].justify = "right"
        for row in rows:
            shape = ", ".join(["None", *map(str, row.shape)])
            table.add_row(f"{row.name} ({row.kind})", f"({shape})", f"{row.parameters:,}")
        total = sum(row.parameters for row in rows)
        screen = console()
        screen.print(table)
        for label, number in (("Total", total), ("Trainable", total), ("Non-trainable", 0)):
            screen.print(f"{label} params: {number:,}", highlight=False)
