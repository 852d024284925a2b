"""`python -m maskx_tf` is the `maskx` command."""

from maskx_tf.cli import main

main()
