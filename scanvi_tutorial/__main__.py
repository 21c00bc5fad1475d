"""The command line as `python -m scanvi_tutorial`, which does not depend on the path of the shell."""

from scanvi_tutorial.cli import main

if __name__ == "__main__":
    main(prog_name="scanvi-tutorial")
