"""Every setting of every command, once: these dataclasses are the library's arguments and the command line's flags."""

from fastdino.config.pictures import (
    CheckConfig,
    CropsConfig,
    PackConfig,
    PreviewConfig,
)
from fastdino.config.runs import (
    CompareConfig,
    DemoConfig,
    DoctorConfig,
    PlanConfig,
    SubmitConfig,
)
from fastdino.config.trained import (
    EXPORT_FORMATS,
    MOVIES,
    AttentionConfig,
    CopyDetectionConfig,
    CorrespondConfig,
    EmbedConfig,
    ExportConfig,
    FeaturesConfig,
    KnnConfig,
    LinearConfig,
    MapConfig,
    PatchesConfig,
    RetrievalConfig,
    VideoSegmentationConfig,
    WeightsConfig,
)
from fastdino.config.training import TrainConfig, training_of

__all__ = [
    "EXPORT_FORMATS",
    "MOVIES",
    "AttentionConfig",
    "CheckConfig",
    "CompareConfig",
    "CopyDetectionConfig",
    "CorrespondConfig",
    "CropsConfig",
    "DemoConfig",
    "DoctorConfig",
    "EmbedConfig",
    "ExportConfig",
    "FeaturesConfig",
    "KnnConfig",
    "LinearConfig",
    "MapConfig",
    "PackConfig",
    "PatchesConfig",
    "PlanConfig",
    "PreviewConfig",
    "RetrievalConfig",
    "SubmitConfig",
    "TrainConfig",
    "VideoSegmentationConfig",
    "WeightsConfig",
    "training_of",
]
