"""An HTTP server over one `Detector`: `centerdet serve`, its page, and the protocols of other programs.

Law: a bad request costs its sender a clear JSON error and nobody else anything; what was accepted is answered.
"""

__all__: list[str] = []
