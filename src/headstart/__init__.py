"""headstart: from a folder of labelled pictures to a classifier you can trust, by transfer learning on Keras 3.

Importing it costs nothing: each name is loaded when it is first used, and Keras with the first that needs it, so
``KERAS_BACKEND`` can still be chosen afterwards.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
