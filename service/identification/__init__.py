"""The use cases: detect, embed, enrol, identify, verify, erase. They know ports and domain, and no adapter."""

from service.identification.custody import CustodyService, Dossier, Receipt
from service.identification.enrolment import EnrolledFace, Enrolment, EnrolmentService, NewId
from service.identification.faces import FaceReader, PictureFaces, crop_digest
from service.identification.probes import Identification, IdentificationService, Verification

__all__ = [
    "CustodyService",
    "Dossier",
    "EnrolledFace",
    "Enrolment",
    "EnrolmentService",
    "FaceReader",
    "Identification",
    "IdentificationService",
    "NewId",
    "PictureFaces",
    "Receipt",
    "Verification",
    "crop_digest",
]
