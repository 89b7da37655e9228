from .comparing import compare as compare
from .errors import (
    DataError as DataError,
)
from .errors import (
    HeadstartError as HeadstartError,
)
from .errors import (
    ImageError as ImageError,
)
from .errors import (
    MissingExtraError as MissingExtraError,
)
from .errors import (
    RunError as RunError,
)
from .errors import (
    UnknownNameError as UnknownNameError,
)
from .errors import (
    WeightsError as WeightsError,
)
from .learning.classifier import Classifier as Classifier
from .learning.estimator import HeadstartClassifier as HeadstartClassifier
from .learning.opening import (
    freeze as freeze,
)
from .learning.opening import (
    unfreeze as unfreeze,
)
from .learning.transfer import transfer_model as transfer_model
from .learning.transformer import FeatureExtractor as FeatureExtractor
from .pictures.scan import scan as scan
from .workflow import (
    Run as Run,
)
from .workflow import (
    demo as demo,
)
from .workflow import (
    evaluate as evaluate,
)
from .workflow import (
    fit as fit,
)
from .workflow import (
    load as load,
)
from .workflow import (
    predict as predict,
)
from .workflow import (
    report as report,
)
