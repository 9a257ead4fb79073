"""The settings of the commands that use a trained backbone."""

from __future__ import annotations

import dataclasses

from fastdino.config.fields import OTHER, option, positional, positionals

WEIGHTS = "weights"


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Which trained backbone a command uses."""

    pretrained_weights: str = option(
        "",
        "Checkpoint whose backbone is used: ours, the original's, DINOv2's, timm's or a folder of Hugging Face's; or a "
        "published one by name, such as dino_vits16 or hf_hub:facebook/dino-vits16.",
        group=WEIGHTS,
    )
    arch: str | None = option(None, "Backbone, if the checkpoint does not say.", group=WEIGHTS)
    patch_size: int | None = option(None, "Patch side in pixels, if the checkpoint does not say.", group=WEIGHTS)
    checkpoint_key: str = option("teacher", "Which network of the checkpoint: teacher or student.", group=WEIGHTS)


FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class FeaturesConfig(WeightsConfig):
    """How a command computes the features of pictures."""

    batch_size_per_gpu: int = option(128, "Pictures read together; a GPU takes them in one pass.", group=FEATURES)
    num_workers: int = option(10, "Most processes that read pictures.", group=FEATURES)
    feature_cache: float = option(
        4.0,
        "Gigabytes of features kept in ~/.cache/fastdino/features, so that the next command need not compute them; 0 "
        "keeps none. (fastdino)",
        group=FEATURES,
    )


@dataclasses.dataclass(frozen=True)
class KnnConfig(FeaturesConfig):
    """k-NN classification with a trained backbone's features."""

    data_path: str = option(
        "/path/to/imagenet/",
        "Folder with train/ and val/, each of class folders; or one of class folders, measured leave-one-out.",
        group=OTHER,
    )
    nb_knn: tuple[int, ...] = option((10, 20, 100, 200), "Numbers of neighbours to vote.", group=OTHER)
    temperature: float = option(0.07, "Temperature of the votes.", group=OTHER)
    use_cuda: bool = option(True, "Compare features on the GPU, where there is one.", group=OTHER)
    dump_features: str | None = option(None, "Folder to save the features in.", group=OTHER)
    load_features: str | None = option(None, "Folder with features saved before.", group=OTHER)
    output: str | None = option(None, "JSON file for the numbers. (fastdino)", group=OTHER)


@dataclasses.dataclass(frozen=True)
class LinearConfig(FeaturesConfig):
    """Linear classification of a trained backbone's features."""

    data_path: str = option(
        "/path/to/imagenet/",
        "Folder with train/ and val/, each of class folders; or one of class folders, of which a fifth is the test.",
        group=OTHER,
    )
    protocol: str = option(
        "fast",
        "fast: features are computed once and --lr is chosen; original: from other crops every epoch, as the original "
        "does. (fastdino)",
        group=OTHER,
        choices=("fast", "original"),
    )
    n_last_blocks: int = option(4, "Blocks whose CLS tokens are joined, for a vit_*.", group=OTHER)
    avgpool_patchtokens: bool = option(False, "Join the mean of the last block's patches, for a vit_*.", group=OTHER)
    epochs: int = option(100, "Passes over the features.", group=OTHER)
    val_freq: int = option(1, "With --protocol original, epochs from one look at the test to the next.", group=OTHER)
    lr: tuple[float, ...] = option(
        (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        "Learning rates for 256 pictures a step, of which the best on held-out training pictures is taken; with "
        "--protocol original one, or 0.001.",
        group=OTHER,
    )
    batch_size_per_gpu: int = option(128, "Pictures in one forward pass and in one step.", group=FEATURES)
    seed: int = option(0, "Seed of the splits and of the classifier. (fastdino)", group=OTHER)
    pretrained_linear: str | None = option(
        None, "Trained classifier, ours or the original's, to measure without training. (fastdino)", group=OTHER
    )
    output: str | None = option(None, "JSON file for the numbers. (fastdino)", group=OTHER)
    output_dir: str = option(".", "Folder for the classifier, linear.pth.", group=OTHER)


LOOKED_AT = "Height and width at which the network looks at pictures; one number is the shorter side's."
MOVIE = "movies"
MOVIES = ("overlay", "map", "mask", "heads")


@dataclasses.dataclass(frozen=True)
class RetrievalConfig(FeaturesConfig):
    """Search for pictures like a query, by the protocol of revisited Oxford and Paris."""

    data_path: str = option(
        "/path/to/revisited_paris_oxford/",
        "Folder that holds roxford5k/ or rparis6k/; with --ground_truth, a folder of pictures.",
        group=OTHER,
    )
    dataset: str = option("roxford5k", "Which of the two.", group=OTHER, choices=("roxford5k", "rparis6k"))
    ground_truth: str | None = option(
        None, "JSON file with what each query of your own should find. (fastdino)", group=OTHER
    )
    multiscale: bool = option(False, "Average the features of three sizes of each picture.", group=OTHER)
    imsize: int = option(224, "Longer side in pixels that larger pictures are shrunk to.", group=OTHER)
    batch_size_per_gpu: int = option(
        32, "Pictures read at a time; those of one shape go through the network together.", group=FEATURES
    )
    use_cuda: bool = option(True, "Use the GPU, where there is one.", group=OTHER)
    output: str | None = option(None, "JSON file for the numbers. (fastdino)", group=OTHER)


@dataclasses.dataclass(frozen=True)
class CopyDetectionConfig(FeaturesConfig):
    """Search for the originals of distorted pictures."""

    data_path: str = option(
        "/path/to/copydays/",
        "Folder with original/ and, beside it, folders of copies: Copydays, or yours.",
        group=OTHER,
    )
    whitening_path: str = option(
        "", "Folder of other pictures, thousands of them, on which features are whitened.", group=OTHER
    )
    distractors_path: str = option("", "Folder of pictures to search that have no copies.", group=OTHER)
    imsize: int = option(320, "Side in pixels of the square that pictures are stretched to.", group=OTHER)
    batch_size_per_gpu: int = option(16, "Pictures read together; a GPU takes them in one pass.", group=FEATURES)
    use_cuda: bool = option(True, "Use the GPU, where there is one.", group=OTHER)
    output: str | None = option(None, "JSON file for the numbers. (fastdino)", group=OTHER)


@dataclasses.dataclass(frozen=True)
class VideoSegmentationConfig(WeightsConfig):
    """Objects followed through videos from a mask of the first frame, for a vit_*."""

    data_path: str = option(
        "/path/to/davis/",
        "Folder laid out like DAVIS 2017; with --first_mask, a movie or a folder of frames.",
        group=OTHER,
    )
    video_list: str = option(
        "ImageSets/2017/val.txt", "File in it that names the videos, a line each. (fastdino)", group=OTHER
    )
    first_mask: str | None = option(
        None, "PNG file with the objects' numbers in the first frame of your own video. (fastdino)", group=OTHER
    )
    output_dir: str = option(".", "Folder for the masks, VIDEO/FRAME.png.", group=OTHER)
    n_last_frames: int = option(7, "Frames looked back at, besides the first.", group=OTHER)
    size_mask_neighborhood: int = option(
        12, "Rows and columns of patches that a patch looks around itself; 0 for all.", group=OTHER
    )
    topk: int = option(5, "Most similar patches whose labels are mixed.", group=OTHER)
    imsize: int = option(480, "Shorter side in pixels that frames are resized to. (fastdino)", group=OTHER)
    output: str | None = option(None, "JSON file for the numbers. (fastdino)", group=OTHER)


@dataclasses.dataclass(frozen=True)
class AttentionConfig(WeightsConfig):
    """What the last layer's CLS token attends to, for a vit_*: in pictures, in movies, or measured against masks."""

    inputs: tuple[str, ...] = positionals("INPUT", "Pictures, folders of pictures, or a movie. (fastdino)", group=OTHER)
    image_path: str = option("", "Another way to give one of them.", group=OTHER)
    image_size: tuple[int, ...] = option((480, 480), LOOKED_AT, group=OTHER)
    output_dir: str = option(".", "Folder for the maps.", group=OTHER)
    threshold: float = option(0.6, "Share of the attention that the masks keep.", group=OTHER)
    masks: str = option(
        "",
        "Folder of true masks, called like the pictures, or a single one's: measures the attention's masks against "
        "them, and draws nothing. (fastdino)",
        group=OTHER,
    )
    out: str | None = option(
        None,
        "Movie to write (.mp4, .mov, .mkv, .webm, .avi or .webp) of a movie, or of a folder of frames. (fastdino)",
        group=MOVIE,
    )
    draw: str = option(
        "overlay",
        "What movies show: the attention over the frame, the map alone, the mask, or every head. (fastdino)",
        group=MOVIE,
        choices=MOVIES,
    )
    head: int | None = option(None, "Head to draw in place of the heads' mean. (fastdino)", group=MOVIE)
    fps: float | None = option(
        None, "Frames a second; without it the movie's own, or 30 for a folder. (fastdino)", group=MOVIE
    )


@dataclasses.dataclass(frozen=True)
class PatchesConfig(WeightsConfig):
    """Foreground and parts of pictures by the principal components of their patches, for a vit_*."""

    inputs: tuple[str, ...] = positionals(
        "INPUT", "Pictures, or folders of pictures, which are looked at together.", group=OTHER
    )
    image_size: tuple[int, ...] = option((480, 480), LOOKED_AT, group=OTHER)
    output_dir: str = option(".", "Folder for the pictures.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class CorrespondConfig(WeightsConfig):
    """Patches of two pictures that are each other's nearest, for a vit_*."""

    first: str = positional("FIRST", "Picture.", group=OTHER)
    second: str = positional("SECOND", "Picture to find the same things in.", group=OTHER)
    image_size: tuple[int, ...] = option((480, 480), LOOKED_AT, group=OTHER)
    lines: int = option(20, "Most correspondences to draw, the most similar ones.", group=OTHER)
    output: str = option("correspondence.png", "PNG file to write.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class EmbedConfig(FeaturesConfig):
    """Features of pictures, in a file."""

    data_path: str = option("", "Folder of pictures, flat or nested, or tar shards.", group=OTHER)
    output: str = option("features.parquet", "File to write, ending in .parquet, .npy or .npz.", group=OTHER)
    image_size: int | None = option(
        None, "Side in pixels of what is looked at; without it that of the training.", group=OTHER
    )


@dataclasses.dataclass(frozen=True)
class MapConfig(FeaturesConfig):
    """The map of pictures by what a backbone takes for alike."""

    data_path: str = option("", "Folder of pictures, flat or in class folders, or tar shards.", group=OTHER)
    output: str = option("map.html", "Page to write.", group=OTHER)
    tree: str | None = option(None, "File for the tree of classes, ending in .nwk (Newick) or .json.", group=OTHER)
    clusters: int = option(12, "Groups of like pictures to colour, found by k-means; 0 for none.", group=OTHER)
    image_size: int | None = option(
        None, "Side in pixels of what is looked at; without it that of the training.", group=OTHER
    )
    seed: int = option(0, "Seed of the places and the clusters.", group=OTHER)


EXPORT_FORMATS = ("timm", "safetensors", "huggingface", "onnx", "torchscript", "torch-export", "dino")


@dataclasses.dataclass(frozen=True)
class ExportConfig(WeightsConfig):
    """A trained backbone in another program's format."""

    format: str = option("safetensors", "What to write.", group=OTHER, choices=EXPORT_FORMATS)
    output: str = option("", "File to write; a folder for huggingface. A model card is written beside it.", group=OTHER)
    image_size: int | None = option(
        None,
        "Side in pixels of the pictures that it is for: position embeddings are resized, and onnx, torchscript and "
        "torch-export take no other. Without it those three take any whole number of patches (vit_* only).",
        group=OTHER,
    )
    push_to_hub: str | None = option(
        None, "Upload the folder to this repository of Hugging Face, OWNER/NAME.", group=OTHER
    )
