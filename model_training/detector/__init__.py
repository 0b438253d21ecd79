"""The face and landmark detector: a network of YuNet's size, taught by YuNet's own answers on training pictures."""
