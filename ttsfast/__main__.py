"""``python -m ttsfast``, which is what ``torchrun -m ttsfast`` starts."""

from ttsfast.cli import main

if __name__ == "__main__":
    main()
