//! The sum by AVX2. It has no addition of words with a carry, but it multiplies pairs of signed words and adds the products, in
//! 32 bits: with ones, that is twice as many words at a time as when each is widened first. Words are made signed by taking half
//! of their range from each, and in the end it is given back.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_castsi256_si128, _mm256_cvtepi32_epi64,
    _mm256_extract_epi64, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setr_epi64x,
    _mm256_setzero_si256, _mm256_xor_si256,
};

use super::Sum;

/// Bytes of a vector.
const LEN: usize = 32;

/// What the words of a vector have too little together.
const OFFSET: i64 = (LEN as i64 / 2) << 15;

/// The sum of some bytes, in 64 bits. There is no overflow before 2 MiB, far beyond any frame.
#[target_feature(enable = "avx2")]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    debug_assert!(bytes.len() < 2 << 20, "longer than any frame by far");
    let (vectors, rest) = bytes.as_chunks::<LEN>();
    let (pairs, last) = vectors.as_chunks::<2>();
    // Two, so that no addition waits for the one before.
    let mut sums = [_mm256_setzero_si256(); 2];
    for [first, second] in pairs {
        sums = [add(sums[0], load(first)), add(sums[1], load(second))];
    }
    for vector in last {
        sums[0] = add(sums[0], load(vector));
    }
    total(sums, vectors.len()).short(rest).0
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8; LEN]) -> __m256i {
    let (words, _) = bytes.as_chunks::<8>();
    let word = |at: usize| words.get(at).map_or(0, |word| i64::from_ne_bytes(*word));
    _mm256_setr_epi64x(word(0), word(1), word(2), word(3))
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(sums: __m256i, words: __m256i) -> __m256i {
    let signed = _mm256_xor_si256(words, _mm256_set1_epi16(i16::MIN));
    _mm256_add_epi32(sums, _mm256_madd_epi16(signed, _mm256_set1_epi16(1)))
}

/// All of what so many vectors were added to.
#[target_feature(enable = "avx2")]
#[inline]
fn total([first, second]: [__m256i; 2], vectors: usize) -> Sum {
    let all = _mm256_add_epi64(widened(first), widened(second));
    let low = _mm256_extract_epi64::<0>(all) + _mm256_extract_epi64::<1>(all);
    let high = _mm256_extract_epi64::<2>(all) + _mm256_extract_epi64::<3>(all);
    Sum((low + high + OFFSET * vectors as i64) as u64)
}

/// The sums of halves, in 64 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn widened(sums: __m256i) -> __m256i {
    let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(sums));
    _mm256_add_epi64(low, _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(sums)))
}
