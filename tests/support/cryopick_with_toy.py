"""The `cryopick` command with the picker `toy` registered."""

import toy_picker  # noqa: F401  # registers it

if __name__ == "__main__":
    from cryopick.cli.main import main

    main()
