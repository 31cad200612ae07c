// What generating a token is made of, for CPUs: products of a few rows with a large matrix, and attention to a cache.
//
// A matrix is read once, from memory, so that is what has to be fast: it lies in strips of columns, each in the order in
// which it is read, all rows are multiplied with a part as it comes, and what comes next is asked for early. Of a cache
// nothing is read beyond the last slot that is seen.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Strips = ffi::Buffer<ffi::F32, 3>;
using Heads = ffi::Buffer<ffi::F32, 4>;
using Mask = ffi::Buffer<ffi::PRED, 2>;

// Floats in a register, and registers side by side: so many that the sums of 8 rows fit.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kSide = 3;
#elif defined(__AVX__)
constexpr int kWidth = 8, kSide = 1;
#elif defined(__ARM_NEON)
constexpr int kWidth = 4, kSide = 2;
#else
constexpr int kWidth = 4, kSide = 1;
#endif
// A strip is as wide as they are, or as what memory gives at once.
extern "C" {
extern const int widest_strip = std::max(16, kSide * kWidth);
}
// How far ahead memory is asked for, in floats; of a cache, whose parts are short, less goes past their ends.
constexpr int64_t kMatrixAhead = 2304, kCacheAhead = 768;
// Matrix rows that are summed up on their own, for the sake of rounding.
constexpr int64_t kSummed = 512;

typedef float Vector __attribute__((vector_size(4 * kWidth), aligned(4)));
static Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
// As Load, and asks for what comes so many floats later.
static Vector Stream(const float* from, int64_t ahead) {
  __builtin_prefetch(from + ahead);
  return Load(from);
}
static void Store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }

struct Product {
  const float *x, *w;         // x is [B, k], w [n / strip, k, strip]
  float* y;                   // [B, n]
  int64_t rows, k, n, strip;
};

// B rows with C * kWidth columns of a strip, which are at w; their sums go to y.
template <int B, int C>
static void Columns(const Product& p, const float* x, const float* w, float* y) {
  for (int64_t first = 0; first < p.k; first += kSummed) {
    Vector sum[B][C] = {};
    for (int64_t i = first; i < std::min(p.k, first + kSummed); ++i) {
      Vector part[C];
      for (int c = 0; c < C; ++c) part[c] = Stream(w + i * p.strip + c * kWidth, kMatrixAhead);
      for (int b = 0; b < B; ++b)
        for (int c = 0; c < C; ++c) sum[b][c] += x[b * p.k + i] * part[c];
    }
    for (int b = 0; b < B; ++b)
      for (int c = 0; c < C; ++c) {
        float* to = y + b * p.n + c * kWidth;
        Store(to, first ? Load(to) + sum[b][c] : sum[b][c]);
      }
  }
}

// B rows with a strip.
template <int B>
static void Strip(const Product& p, int64_t row, int64_t strip) {
  const float *x = p.x + row * p.k, *w = p.w + strip * p.k * p.strip;
  float* y = p.y + row * p.n + strip * p.strip;
  int64_t j = 0;
  for (; j + kSide * kWidth <= p.strip; j += kSide * kWidth) Columns<B, kSide>(p, x, w + j, y + j);
  if constexpr (kSide == 3)
    for (; j + 2 * kWidth <= p.strip; j += 2 * kWidth) Columns<B, 2>(p, x, w + j, y + j);
  for (; j < p.strip; j += kWidth) Columns<B, 1>(p, x, w + j, y + j);
}

// Calls part(begin, end) for pieces of 0 to n, on all threads. The caller works too, and waits for no piece that nobody has
// begun, so that it ends even if all other threads are busy.
template <typename F>
static void Parallel(ffi::ThreadPool& pool, int64_t n, int64_t piece, F part) {
  struct Shared {
    std::atomic<int64_t> begun{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  int64_t pieces = (n + piece - 1) / piece;
  auto work = [=] {
    for (int64_t i; (i = shared->begun++) < pieces; ++shared->done) part(i * piece, std::min(n, (i + 1) * piece));
  };
  for (int64_t thread = 1; thread < std::min(pool.num_threads(), pieces); ++thread) pool.Schedule(decltype(work)(work));
  work();
  while (shared->done < pieces) std::this_thread::yield();
}

// Lays a matrix [k, n], or [n, k] if it is transposed, out in strips [n / strip, k, strip].
static ffi::Error MakeStrips(ffi::ThreadPool pool, bool transposed, Matrix w, ffi::Result<Strips> strips) {
  auto size = strips->dimensions();
  int64_t k = size[1], width = size[2], n = size[0] * width;
  const float* from = w.typed_data();
  float* to = strips->typed_data();
  Parallel(pool, size[0], 1, [=](int64_t strip, int64_t) {
    float* out = to + strip * k * width;
    const float* in = from + strip * width * (transposed ? k : 1);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < width; ++j) *out++ = transposed ? in[j * k + i] : in[i * n + j];
  });
  return ffi::Error::Success();
}

static ffi::Error FewRows(ffi::ThreadPool pool, Matrix x, Strips w, ffi::Result<Matrix> y) {
  static constexpr decltype(&Strip<8>) kStrip[] = {Strip<1>, Strip<2>, Strip<3>, Strip<4>,
                                                   Strip<5>, Strip<6>, Strip<7>, Strip<8>};
  auto size = w.dimensions();
  Product p{x.typed_data(), w.typed_data(), y->typed_data(), x.dimensions()[0], size[1], size[0] * size[2], size[2]};
  int64_t strips = size[0], threads = std::max<int64_t>(pool.num_threads(), 1);
  Parallel(pool, strips, (strips - 1) / (2 * threads) + 1, [=](int64_t strip, int64_t end) {
    for (; strip < end; ++strip)
      for (int64_t row = 0; row < p.rows; row += 8) kStrip[std::min<int64_t>(p.rows - row, 8) - 1](p, row, strip);
  });
  return ffi::Error::Success();
}

template <int N>
static float Sum(const float* v) {
  if constexpr (N == 1) {
    return *v;
  } else {
    float half[N / 2];
    for (int i = 0; i < N / 2; ++i) half[i] = v[i] + v[i + N / 2];
    return Sum<N / 2>(half);
  }
}

static float Dot(const float* a, const float* b, int64_t n) {
  Vector sum = {};
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) sum += Load(a + i) * Stream(b + i, kCacheAhead);
  float total = Sum<kWidth>(reinterpret_cast<float*>(&sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

// C * kWidth numbers of the sum of the slots' values, by weight.
template <int C>
static void Weighted(const float* weight, const float* v, int64_t slots, int64_t size, float* y) {
  Vector sum[C] = {};
  for (int64_t s = 0; s < slots; ++s)
    for (int c = 0; c < C; ++c) sum[c] += weight[s] * Stream(v + s * size + c * kWidth, kCacheAhead);
  for (int c = 0; c < C; ++c) Store(y + c * kWidth, sum[c]);
}

// One query's attention to the slots that are seen; there is room for a number of each slot.
static void Look(const float* q, const float* k, const float* v, const bool* seen, int64_t slots, int64_t size,
                 float* weight, float* y) {
  float highest = -INFINITY, total = 0, scale = 1 / std::sqrt(float(size));
  for (int64_t s = 0; s < slots; ++s) {
    weight[s] = seen[s] ? scale * Dot(q, k + s * size, size) : -INFINITY;
    highest = std::max(highest, weight[s]);
  }
  for (int64_t s = 0; s < slots; ++s) total += weight[s] = std::exp(weight[s] - highest);
  for (int64_t s = 0; s < slots; ++s) weight[s] /= total;
  int64_t i = 0;
  for (; i + 4 * kWidth <= size; i += 4 * kWidth) Weighted<4>(weight, v + i, slots, size, y + i);
  for (; i + kWidth <= size; i += kWidth) Weighted<1>(weight, v + i, slots, size, y + i);
  for (; i < size; ++i) {
    y[i] = 0;
    for (int64_t s = 0; s < slots; ++s) y[i] += weight[s] * v[s * size + i];
  }
}

static ffi::Error Attention(ffi::ThreadPool pool, Heads q, Heads k, Heads v, Mask seen, ffi::Result<Heads> y) {
  int64_t heads = q.dimensions()[1], kept = k.dimensions()[1], slots = k.dimensions()[2], size = k.dimensions()[3];
  const float *queries = q.typed_data(), *keys = k.typed_data(), *values = v.typed_data();
  const bool* mask = seen.typed_data();
  float* out = y->typed_data();
  int64_t all = q.dimensions()[0] * kept, pieces = 4 * std::max<int64_t>(pool.num_threads(), 1);
  Parallel(pool, all, (all - 1) / pieces + 1, [=](int64_t first, int64_t end) {
    std::vector<float> weight(slots);
    for (int64_t n = first; n < end; ++n) {
      const bool* row = mask + n / kept * slots;
      int64_t used = slots;
      while (used > 1 && !row[used - 1]) --used;
      for (int64_t one = n * heads / kept; one < (n + 1) * heads / kept; ++one)
        Look(queries + one * size, keys + n * slots * size, values + n * slots * size, row, used, size, weight.data(),
             out + one * size);
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention, Attention,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Heads>().Arg<Heads>().Arg<Heads>().Arg<Mask>().Ret<Heads>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(few_rows, FewRows,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Arg<Strips>().Ret<Matrix>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(strips, MakeStrips,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<bool>("transposed").Arg<Matrix>().Ret<Strips>());
