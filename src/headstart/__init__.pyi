from .errors import (
    DataError as DataError,
    HeadstartError as HeadstartError,
    ImageError as ImageError,
    MissingExtraError as MissingExtraError,
    RunError as RunError,
    UnknownNameError as UnknownNameError,
    WeightsError as WeightsError,
)
from .learning.classifier import Classifier as Classifier
from .learning.transfer import transfer_model as transfer_model
from .pictures.scan import scan as scan
from .workflow import (
    Run as Run,
    demo as demo,
    evaluate as evaluate,
    fit as fit,
    load as load,
    predict as predict,
    report as report,
)
