// Products of a few rows with a large matrix, for CPUs: what generating a token is made of.
//
// The matrix is read once, from memory, so that is what has to be fast: all rows are multiplied with each part of it
// as it comes, and what comes next is asked for early.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Result = ffi::Result<Matrix>;

// Floats in a register, and registers side by side in a strip of columns: so many that the sums of 8 rows fit.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kSide = 3;
#elif defined(__AVX__)
constexpr int kWidth = 8, kSide = 1;
#elif defined(__ARM_NEON)
constexpr int kWidth = 4, kSide = 3;
#else
constexpr int kWidth = 4, kSide = 1;
#endif
// How far ahead memory is asked for: matrix rows, of those that are read along columns; floats, of those read along rows.
constexpr int64_t kRowsAhead = 48, kFloatsAhead = 1536;
// Matrix rows that are summed up on their own, for the sake of rounding.
constexpr int64_t kSummed = 512;
// Floats that are still in the cache of a core when they are read again.
constexpr int64_t kCached = 1 << 17;

typedef float Vector __attribute__((vector_size(4 * kWidth), aligned(4)));
static Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static void Store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }

struct Product {
  const float *x, *w;  // x is [B, k]; w is [k, n], or [n, k] if it is transposed
  float* y;            // [B, n]
  int64_t k, n;
};

// Columns j to j + C * kWidth.
template <int B, int C>
static void Strip(const Product& p, int64_t j) {
  for (int64_t first = 0; first < p.k; first += kSummed) {
    Vector sum[B][C] = {};
    for (int64_t i = first; i < std::min(p.k, first + kSummed); ++i) {
      const float* row = p.w + i * p.n + j;
      Vector part[C];
      for (int c = 0; c < C; ++c) {
        __builtin_prefetch(row + kRowsAhead * p.n + c * kWidth);
        part[c] = Load(row + c * kWidth);
      }
      for (int b = 0; b < B; ++b)
        for (int c = 0; c < C; ++c) sum[b][c] += p.x[b * p.k + i] * part[c];
    }
    for (int b = 0; b < B; ++b)
      for (int c = 0; c < C; ++c) {
        float* y = p.y + b * p.n + j + c * kWidth;
        Store(y, first ? Load(y) + sum[b][c] : sum[b][c]);
      }
  }
}

template <int B>
static void Columns(const Product& p, int64_t j, int64_t end) {
  for (; j + kSide * kWidth <= end; j += kSide * kWidth) Strip<B, kSide>(p, j);
  for (; j + kWidth <= end; j += kWidth) Strip<B, 1>(p, j);
  for (; j < end; ++j)
    for (int b = 0; b < B; ++b) {
      float sum = 0;
      for (int64_t i = 0; i < p.k; ++i) sum += p.x[b * p.k + i] * p.w[i * p.n + j];
      p.y[b * p.n + j] = sum;
    }
}

// Columns j to end of a transposed matrix.
template <int B>
static void Lines(const Product& p, int64_t j, int64_t end) {
  for (; j < end; ++j) {
    const float* line = p.w + j * p.k;
    Vector sum[B] = {};
    int64_t i = 0;
    for (; i + kWidth <= p.k; i += kWidth) {
      __builtin_prefetch(line + i + kFloatsAhead);
      Vector part = Load(line + i);
      for (int b = 0; b < B; ++b) sum[b] += Load(p.x + b * p.k + i) * part;
    }
    for (int b = 0; b < B; ++b) {
      float total = 0;
      for (int lane = 0; lane < kWidth; ++lane) total += sum[b][lane];
      for (int64_t rest = i; rest < p.k; ++rest) total += p.x[b * p.k + rest] * line[rest];
      p.y[b * p.n + j] = total;
    }
  }
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
  while (shared->done < pieces) {
  }
}

// Columns j to end of B rows.
template <int B>
static void Piece(const Product& p, bool transposed, int64_t j, int64_t end) {
  transposed ? Lines<B>(p, j, end) : Columns<B>(p, j, end);
}

static ffi::Error FewRows(ffi::ThreadPool pool, bool transposed, Matrix x, Matrix w, Result y) {
  static constexpr decltype(&Piece<8>) kPiece[] = {Piece<1>, Piece<2>, Piece<3>, Piece<4>,
                                                   Piece<5>, Piece<6>, Piece<7>, Piece<8>};
  Product all{x.typed_data(), w.typed_data(), y->typed_data(), x.dimensions()[1], y->dimensions()[1]};
  int64_t rows = x.dimensions()[0];
  int64_t strip = kSide * kWidth, piece = (all.n - 1) / std::max<int64_t>(pool.num_threads(), 1) + 1;
  if (rows > 8) piece = std::min(piece, kCached / all.k);  // so that the next 8 rows find it in the cache
  piece = (std::max<int64_t>(piece, 1) - 1) / strip * strip + strip;
  Parallel(pool, all.n, piece, [=](int64_t j, int64_t end) {
    for (int64_t row = 0; row < rows; row += 8) {
      Product p = all;
      p.x += row * p.k, p.y += row * p.n;
      kPiece[std::min<int64_t>(rows - row, 8) - 1](p, transposed, j, end);
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(FewRowsHandler, FewRows,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<bool>("transposed").Arg<Matrix>().Arg<Matrix>().Ret<Matrix>());
