"""The DICOM files that the packages pydicom and pydicom-data bring for tests, of every encoding."""

from pathlib import Path

import data_store
import pydicom

# Not by pydicom's own functions, which download what they miss.
FOLDERS = [
    Path(pydicom.__file__).parent / "data/test_files",
    Path(data_store.__file__).parent / "data",
]
FILES = {path.name: path for folder in FOLDERS for path in sorted(folder.rglob("*.dcm"))}
"""By name."""

READABLE = [
    "693_J2KI.dcm", "693_J2KR.dcm", "693_UNCI.dcm", "693_UNCR.dcm", "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm", "JPEG-LL.dcm", "JPEG2000.dcm", "JPEG2000_UNC.dcm",
    "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm", "MR2_J2KI.dcm",
    "MR2_J2KR.dcm", "MR2_UNCI.dcm", "MR2_UNCR.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    "RG1_J2KI.dcm", "RG1_J2KR.dcm", "RG1_UNCI.dcm", "RG1_UNCR.dcm", "RG3_J2KI.dcm", "RG3_J2KR.dcm",
    "RG3_UNCI.dcm", "RG3_UNCR.dcm", "bad_sequence.dcm", "examples_overlay.dcm",
    "explicit_VR-UN.dcm", "image_dfl.dcm", "mlut_18.dcm", "vlut_04.dcm",
]  # fmt: skip
"""The test files that become an image once any modality is accepted, by name: a file that a change
loses is told, not passed over."""
