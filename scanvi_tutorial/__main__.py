"""`python -m scanvi_tutorial`: the command line, whatever the shell finds on its path."""

from scanvi_tutorial.cli import main

if __name__ == "__main__":
    main(prog_name="scanvi-tutorial")
