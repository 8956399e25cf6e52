"""The whole pipeline on 1,000 real paediatric chest films (Kermany et al., CC BY 4.0)."""

import io
import json
import re
import tarfile
import uuid

import pandas as pd
import pytest
from PIL import Image

from pneumonia.secondary_capture import wrap

pytestmark = [pytest.mark.e2e, pytest.mark.rsna]

PER_CLASS = 500
PERSON = re.compile(r"(person\d+|(?:NORMAL2-)?IM-\d+)")


@pytest.fixture
def raw(real_data, tmp_path):
    """The films in the challenge's layout, with the person that each file's name tells."""
    folder = tmp_path / "raw"
    (folder / "stage_2_train_images").mkdir(parents=True)
    labels, persons = [], []
    with tarfile.open(real_data / "kermany224_train.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpeg"))
        for kind in ("NORMAL", "PNEUMONIA"):
            files = [name for name in names if name.split("/")[1] == kind]
            for name in files[:: len(files) // PER_CLASS][:PER_CLASS]:
                image = Image.open(archive.extractfile(name)).convert("L")
                jpeg = io.BytesIO()
                image.save(jpeg, "JPEG", quality=95)
                image_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
                lot = uuid.UUID(image_id).int
                film = wrap(
                    jpeg.getvalue(), side=image.width, image_id=image_id,
                    view=("AP", "PA")[lot % 2], sex=("F", "M")[lot % 3 % 2], age=1 + lot % 5,
                    spacing=0.143,
                )  # fmt: skip
                (folder / "stage_2_train_images" / f"{image_id}.dcm").write_bytes(film)
                box = (0, 0, image.width, image.height) if kind == "PNEUMONIA" else (None,) * 4
                labels.append((image_id, *box, int(kind == "PNEUMONIA")))
                persons.append((image_id, PERSON.match(name.rpartition("/")[2]).group(1)))
    columns = ["patientId", "x", "y", "width", "height", "Target"]
    table = pd.DataFrame(labels, columns=columns)
    table.to_csv(folder / "stage_2_train_labels.csv", index=False)
    pd.DataFrame(persons, columns=["patientId", "person"]).to_csv(
        tmp_path / "patients.csv", index=False
    )
    return folder


def test_both_models_tell_real_films_apart_on_people_they_have_not_seen(raw, tmp_path, command):
    done = command(
        "run", "--raw", raw, "--workspace", "workspace", "--persons", "patients.csv",
        "--set", "shards.image_size=128", "--set", "training.weights=none", timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file = tmp_path / "workspace/runs/main/evaluation/evaluation.json"
    evaluation = json.loads(file.read_text("utf-8"))
    auroc = {name: m["test"]["auroc"]["value"] for name, m in evaluation["models"].items()}
    assert auroc["resnet18"] >= 0.95
    assert auroc["custom_cnn"] >= 0.95
    assert evaluation["data"]["grouping"] == "person"
