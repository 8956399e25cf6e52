"""The challenge's CSVs become one row per image and a table of boxes."""

LABELS_CSV = "stage_2_train_labels.csv"
CLASSES_CSV = "stage_2_detailed_class_info.csv"
IMAGES_FOLDER = "stage_2_train_images"
