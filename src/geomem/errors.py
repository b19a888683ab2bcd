"""The error that ends a command in one line."""


class InputError(ValueError):
    """Something the user can mend: the message names what, where and the remedy in one line."""
