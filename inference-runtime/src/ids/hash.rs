//! Hash functions by their names in config.yaml. They are what training used, so their values never change.

use std::io::Write as _;

use serde::Deserialize;

use super::farmhash::fingerprint64;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum HashName {
    /// TensorFlow's and Keras's.
    #[serde(rename = "farmhash64")]
    FarmHash64,
    /// Of seed 0.
    #[serde(rename = "xxh64")]
    Xxh64,
    /// Of seed 0, unsigned.
    #[serde(rename = "murmur3_x86_32")]
    Murmur3,
}

impl HashName {
    pub fn as_str(self) -> &'static str {
        match self {
            HashName::FarmHash64 => "farmhash64",
            HashName::Xxh64 => "xxh64",
            HashName::Murmur3 => "murmur3_x86_32",
        }
    }

    pub fn hash(self, value: &[u8]) -> u64 {
        match self {
            HashName::FarmHash64 => fingerprint64(value),
            HashName::Xxh64 => xxhash_rust::xxh64::xxh64(value, 0),
            HashName::Murmur3 => {
                let hash = murmur3::murmur3_32(&mut &*value, 0);
                hash.expect("memory is read without errors").into()
            }
        }
    }
}

/// A hash function over so many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub function: HashName,
    /// At least 1.
    pub rows: u64,
}

impl Bucket {
    pub fn row(self, value: &[u8]) -> u64 {
        self.function.hash(value) % self.rows
    }

    /// Of a number: of its decimal digits, as TensorFlow hashes them.
    pub fn row_of_number(self, id: i64) -> u64 {
        // The longest is -9223372036854775808.
        let mut text = [0; 20];
        let mut rest = &mut text[..];
        write!(rest, "{id}").expect("an id has at most 20 bytes");
        let length = 20 - rest.len();
        self.row(&text[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values, and what the reference implementations make of them: pyfarmhash 0.5.1 (`fingerprint64`), xxhash 4.1.0
    /// (`xxh64_intdigest`) and mmh3 5.3.1 (`hash(..., signed=False)`) from PyPI.
    const GOLDENS: &[(&str, usize, u64, u64, u64)] = &[
        ("", 1, 11_160_318_154_034_397_263, 17_241_709_254_077_376_921, 0),
        (
            "a",
            1,
            12_917_804_110_809_363_939,
            15_154_266_338_359_012_955,
            1_009_084_850,
        ),
        (
            "ab",
            1,
            12_289_600_257_749_001_502,
            7_347_350_983_217_793_633,
            2_613_040_991,
        ),
        (
            "abc",
            1,
            2_640_714_258_260_161_385,
            4_952_883_123_889_572_249,
            3_017_643_002,
        ),
        (
            "4711",
            1,
            13_262_357_159_492_718_021,
            18_103_899_216_114_133_377,
            1_312_407_056,
        ),
        (
            "-5",
            1,
            17_702_585_896_903_905_816,
            13_000_575_400_847_369_072,
            3_601_535_403,
        ),
        (
            "seven77",
            1,
            12_609_918_153_904_721_023,
            18_177_957_087_392_214_794,
            131_381_349,
        ),
        (
            "8 bytes!",
            1,
            17_223_947_622_980_180_472,
            11_543_723_351_142_804_701,
            395_466_768,
        ),
        (
            "9223372036854775807",
            1,
            12_739_833_532_913_062_319,
            15_613_979_337_394_519_731,
            177_519_188,
        ),
        (
            "-9223372036854775808",
            1,
            1_493_431_938_208_774_112,
            11_412_238_772_203_891_728,
            868_142_273,
        ),
        (
            "bücher",
            1,
            8_543_380_801_551_721_400,
            682_942_710_736_884_607,
            3_148_605_950,
        ),
        (
            "k",
            15,
            15_175_057_318_056_172_286,
            13_532_055_163_755_805_910,
            3_236_288_708,
        ),
        (
            "k",
            16,
            6_440_603_466_862_899_846,
            12_030_768_183_774_057_274,
            3_738_313_326,
        ),
        (
            "k",
            17,
            5_370_583_684_318_530_380,
            16_116_466_929_160_819_061,
            1_474_694_828,
        ),
        (
            "k",
            31,
            8_403_879_411_478_151_271,
            12_349_595_677_608_945_976,
            3_406_464_346,
        ),
        (
            "k",
            32,
            1_040_614_349_210_187_413,
            16_590_668_850_256_963_321,
            1_528_911_501,
        ),
        (
            "k",
            33,
            6_925_554_941_576_944_858,
            15_428_818_212_459_372_088,
            184_103_155,
        ),
        (
            "k",
            63,
            7_504_790_826_716_222_199,
            18_404_395_569_731_606_260,
            352_170_889,
        ),
        (
            "k",
            64,
            6_408_500_788_648_153_283,
            2_491_992_827_774_976_676,
            2_234_589_301,
        ),
        (
            "k",
            65,
            8_202_223_222_095_031_418,
            6_437_317_647_024_604_541,
            2_642_697_490,
        ),
        (
            "abcdefghijk",
            1,
            2_119_837_359_311_335_017,
            9_317_425_860_326_684_896,
            1_597_711_839,
        ),
        (
            "abcdefghijk",
            2,
            17_707_342_240_158_240_862,
            12_919_875_884_737_384_927,
            591_435_055,
        ),
        (
            "abcdefghijk",
            3,
            13_665_019_421_507_270_655,
            11_212_366_569_601_066_088,
            3_693_439_249,
        ),
        (
            "abcdefghijk",
            5,
            6_701_364_588_354_516_027,
            15_459_466_659_592_444_476,
            1_072_917_749,
        ),
        (
            "abcdefghijk",
            6,
            11_576_395_175_385_699_549,
            3_089_755_950_578_561_151,
            1_308_411_020,
        ),
        (
            "abcdefghijk",
            12,
            5_125_367_100_401_415_370,
            4_027_949_208_101_926_433,
            2_615_154_887,
        ),
        (
            "abcdefghijk",
            64,
            9_190_554_323_866_750_843,
            7_902_043_722_252_035_129,
            2_405_866_349,
        ),
    ];

    #[test]
    fn reference_implementations_agree() {
        for (text, repeat, farmhash, xxh64, murmur3) in GOLDENS {
            let value = text.repeat(*repeat);
            let named = |name: HashName| name.hash(value.as_bytes());
            assert_eq!(named(HashName::FarmHash64), *farmhash, "{text:?} {repeat}");
            assert_eq!(named(HashName::Xxh64), *xxh64, "{text:?} {repeat}");
            assert_eq!(named(HashName::Murmur3), *murmur3, "{text:?} {repeat}");
        }
    }

    #[test]
    fn numbers_are_hashed_as_their_digits() {
        let bucket = Bucket {
            function: HashName::FarmHash64,
            rows: 1000,
        };
        for id in [0, 7, -5, 4711, i64::MAX, i64::MIN] {
            assert_eq!(bucket.row_of_number(id), bucket.row(id.to_string().as_bytes()));
        }
        // tf.strings.to_hash_bucket_fast(["4711", "-5"], 1000)
        assert_eq!(bucket.row_of_number(4711), 13_262_357_159_492_718_021 % 1000);
        assert_eq!(bucket.row_of_number(-5), 17_702_585_896_903_905_816 % 1000);
    }

    #[test]
    fn tensorflows_own_example() {
        // From the documentation of tf.strings.to_hash_bucket_fast.
        let bucket = Bucket {
            function: HashName::FarmHash64,
            rows: 3,
        };
        let texts = ["Hello", "TensorFlow", "2.x"];
        assert_eq!(texts.map(|text| bucket.row(text.as_bytes())), [0, 2, 2]);
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for name in [HashName::FarmHash64, HashName::Xxh64, HashName::Murmur3] {
            assert_eq!(serde_yaml::from_str::<HashName>(name.as_str()).unwrap(), name);
        }
    }
}
