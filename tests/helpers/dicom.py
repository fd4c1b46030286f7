"""Small DICOM files: a series of slices, and a multi-frame file."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

SPACING_MM = (2.0, 1.0, 1.5)  # z, y, x
ORIGIN_MM = (-10.0, -20.0, 5.0)  # x, y, z, towards left, posterior, superior


def write_series(folder: Path, volume: np.ndarray, first: int = 1, **changes: object) -> Path:
    """Write a (z, y, x) volume as one axial file per slice; `changes` are DICOM elements."""
    folder.mkdir(parents=True, exist_ok=True)
    for z, values in enumerate(volume):
        header = _header(values, f"1.2.3.{first + z}", str(MRImageStorage))
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = _position(z)
        header.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
        header.SliceThickness = SPACING_MM[0]
        header.InstanceNumber = first + z
        for name, value in changes.items():
            setattr(header, name, value)
        header.save_as(folder / f"{first + z:03d}.dcm", enforce_file_format=True)
    return folder


def write_multiframe(folder: Path, volume: np.ndarray) -> Path:
    """Write a (z, y, x) volume into one enhanced MR file, without what says where frames lie."""
    folder.mkdir(parents=True, exist_ok=True)
    header = _header(volume[0], "1.2.3.1", str(EnhancedMRImageStorage))
    header.NumberOfFrames = len(volume)
    header.PixelData = volume.astype(np.uint16).tobytes()
    header.save_as(folder / "multiframe.dcm", enforce_file_format=True)
    return folder


def _position(z: int) -> list[float]:
    return [ORIGIN_MM[0], ORIGIN_MM[1], ORIGIN_MM[2] + z * SPACING_MM[0]]


def _header(plane: np.ndarray, instance: str, kind: str) -> pydicom.FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = kind, instance
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.1", "1.2.2"
    header.Modality = "MR"
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    header.Rows, header.Columns = plane.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.PixelData = plane.astype(np.uint16).tobytes()
    return header
