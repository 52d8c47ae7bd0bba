import pytest
from botocore.exceptions import ClientError

BYTES = bytes(range(256)) * 40
KEY = "ranker/1/model.onnx"


@pytest.fixture(scope="module")
def s3(sim):
    return sim.s3()


def test_list(s3):
    listed = s3.list_objects_v2(Bucket="models")
    assert [o["Key"] for o in listed["Contents"]] == ["ranker/1/manifest.json", KEY, "top.txt"]
    assert listed["KeyCount"] == 3 and not listed["IsTruncated"]
    folded = s3.list_objects_v2(Bucket="models", Delimiter="/")
    assert [p["Prefix"] for p in folded["CommonPrefixes"]] == ["ranker/"]
    assert [o["Key"] for o in folded["Contents"]] == ["top.txt"]
    below = s3.list_objects_v2(Bucket="models", Prefix="ranker/1/m", StartAfter="ranker/1/manifest.json")
    assert [o["Key"] for o in below["Contents"]] == [KEY]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="models", PaginationConfig={"PageSize": 1})
    assert [o["Key"] for page in pages for o in page["Contents"]] == [o["Key"] for o in listed["Contents"]]


def test_head_and_get(s3):
    head = s3.head_object(Bucket="models", Key=KEY)
    assert head["ContentLength"] == len(BYTES)
    got = s3.get_object(Bucket="models", Key=KEY)
    assert got["Body"].read() == BYTES and got["ETag"] == head["ETag"]
    assert got["LastModified"] == head["LastModified"]
    same = s3.get_object(Bucket="models", Key=KEY, IfMatch=head["ETag"])
    assert same["ContentLength"] == len(BYTES)
    with pytest.raises(ClientError) as changed:
        s3.get_object(Bucket="models", Key=KEY, IfMatch='"other"')
    assert changed.value.response["Error"]["Code"] == "PreconditionFailed"
    with pytest.raises(ClientError) as unchanged:
        s3.get_object(Bucket="models", Key=KEY, IfNoneMatch=head["ETag"])
    assert unchanged.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304


@pytest.mark.parametrize(
    ("header", "expected"),
    [("bytes=0-9", BYTES[:10]), ("bytes=10000-", BYTES[10000:]), ("bytes=-7", BYTES[-7:])],
)
def test_ranges(s3, header, expected):
    got = s3.get_object(Bucket="models", Key=KEY, Range=header)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and got["Body"].read() == expected
    assert got["ContentRange"].endswith(f"/{len(BYTES)}")


def test_what_is_not_there_and_what_is_not_allowed(s3):
    for call, code in [
        (lambda: s3.get_object(Bucket="models", Key="none"), "NoSuchKey"),
        (lambda: s3.get_object(Bucket="models", Key="../models/top.txt"), "NoSuchKey"),
        (lambda: s3.get_object(Bucket="nowhere", Key="none"), "NoSuchBucket"),
        (lambda: s3.get_object(Bucket="models", Key=KEY, Range="bytes=99999-"), "InvalidRange"),
    ]:
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError):
        s3.put_object(Bucket="models", Key="new", Body=b"x")


def test_signed_reads_and_journal(sim):
    mark = sim.mark()
    assert sim.client("s3", key="AKIAOPERATOR").head_object(Bucket="models", Key="top.txt")["ContentLength"] == 3
    (entry,) = sim.journal(mark)["entries"]
    assert (entry["action"], entry["principal"], entry["mutation"]) == ("HeadObject", "AKIAOPERATOR", False)
