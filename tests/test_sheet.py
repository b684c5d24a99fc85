import pytest

from kernels.sheet import identity, sheet_names, sheet_of


def test_every_sheet_identifies_itself():
    for name in sheet_names():
        sheet = identity(name)
        assert sheet.name == name
        assert sheet.vendor in ("Qualcomm", "Arm")
        assert sheet.matches(sheet.model)


@pytest.mark.parametrize(
    ("strings", "name"),
    [
        ("QUALCOMM Adreno(TM)\nOpenCL 3.0 Adreno(TM) 750", "adreno750"),
        ("QUALCOMM Adreno(TM) 830\nOpenCL 3.0", "adreno830"),
        ("QUALCOMM Adreno(TM)\nOpenCL 2.0 Adreno(TM) 640", "adreno640"),
        ("Mali-G715-Immortalis MC11 r1p2\nOpenCL 3.0 v1.r38p1", "mali-g715"),
        ("Mali-G76\nOpenCL 2.1 v1.r16p0", "mali-g76"),
        ("Mali-G720-Immortalis MC12 r0p0\nOpenCL 3.0", "mali-g720"),
        ("QUALCOMM Adreno(TM)\nOpenCL 3.0 Adreno(TM) 7500", None),
        ("Mali-G7\nOpenCL 2.1", None),
        ("pthread-AMD EPYC 7502\nOpenCL 3.0", None),
    ],
)
def test_live_strings_find_their_sheet(strings, name):
    found = sheet_of(strings)
    assert (found.name if found else None) == name


def test_an_unknown_sheet():
    with pytest.raises(KeyError):
        identity("adreno1")
