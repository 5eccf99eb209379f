// Records against the plain code: bytes of encoding, elements of decoding.
#include "kernels/cuda/int_records.h"

#include <cstring>
#include <limits>

#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using machine::Ropes;
using IntRecordsTest = machine::Test;

struct Case {
  RecordShape shape;
  uint32_t heads = 1;
  bool turns = false;
  RopePairing pairing = RopePairing::kInterleaved;
  uint32_t rotated_dims = 0;
};

// Numbers of all kinds in one block: usual, beyond f16, none at all, equal, zeros of both signs.
std::vector<std::byte> Elements(RowType type, size_t count, uint32_t kind, std::mt19937& random) {
  auto bytes = RandomElements(type, count, random);
  for (size_t i = 0; i < count; ++i) {
    if (kind == 1 && i % 97 == 0) {
      StoreElement(type, bytes.data(), i, std::numeric_limits<float>::quiet_NaN());
    } else if (kind == 1 && i % 89 == 0) {
      StoreElement(type, bytes.data(), i, i % 2 == 0 ? -1e30F : 1e30F);
    } else if (kind == 2) {
      StoreElement(type, bytes.data(), i, i % 3 == 0 ? -0.0F : 0.0F);
    } else if (kind == 3) {
      StoreElement(type, bytes.data(), i, 1000.0F + static_cast<float>(i % 5) * 0.25F);
    }
  }
  return bytes;
}

void Compare(const Case& it, uint32_t kind, std::mt19937& random) {
  const RecordShape& shape = it.shape;
  const size_t blocks = 3;
  const size_t row_elements = size_t{it.heads} * shape.dims;
  const size_t row_bytes = row_elements * ElementBytes(shape.type);
  const size_t slots = blocks * shape.rows;
  // Blocks of 32 rows lie at addresses that no wide load takes.
  const size_t offset = shape.rows == 32 ? ElementBytes(shape.type) : 0;
  const Array pool(Elements(shape.type, slots * row_elements, kind, random), offset);
  std::vector<const std::byte*> where;
  for (size_t slot = 0; slot < slots; ++slot) {
    where.push_back(pool.bytes() + (slot * 7 % slots) * row_bytes);
  }
  const std::vector<uint32_t> filled = {shape.rows, 1, shape.rows - 3};
  std::vector<int64_t> deltas(slots);
  for (size_t slot = 0; slot < slots; ++slot) {
    deltas[slot] = it.turns ? -static_cast<int64_t>(slot / 5 * 1001) : 0;
  }
  const Array addresses(where);
  const Array counts(filled);
  const Array turns(deltas);
  const auto numbers = MakeRopeNumbers(10000.0, it.rotated_dims, 2);
  ASSERT_TRUE(numbers.ok());
  const Ropes ropes(*numbers);
  const uint64_t record_bytes = RecordBytes(shape);
  const uint64_t head_stride = record_bytes + 8;
  const uint64_t block_stride = head_stride * it.heads + 4;
  const Array got(std::vector<std::byte>(block_stride * blocks, std::byte{0x5A}));
  RecordEncoding encoding = {.shape = shape, .kv_heads = it.heads, .blocks = blocks};
  encoding.from = {.addresses = addresses.data()};
  encoding.counts = counts.data();
  encoding.deltas = it.turns ? turns.data() : nullptr;
  encoding.pairing = it.pairing;
  encoding.table = ropes.table();
  encoding.to = {got.bytes(), block_stride, head_stride};
  const absl::Status encoded = Execute(encoding);
  ASSERT_TRUE(encoded.ok()) << encoded.message();

  const auto source = pool.Read();
  std::vector<std::byte> expected(block_stride * blocks, std::byte{0x5A});
  std::vector<float> floats(slots * row_elements);
  for (size_t block = 0; block < blocks; ++block) {
    for (size_t head = 0; head < it.heads; ++head) {
      std::vector<const std::byte*> rows;
      for (size_t row = 0; row < filled[block]; ++row) {
        const auto at = static_cast<size_t>(where[block * shape.rows + row] - pool.bytes());
        rows.push_back(source.data() + at + head * shape.dims * ElementBytes(shape.type));
      }
      RecordTurn turn;
      turn.rope = {shape.type, it.pairing, 1, shape.dims, it.rotated_dims, 10000.0};
      if (it.turns) {
        turn.deltas = {deltas.data() + block * shape.rows, rows.size()};
      }
      std::byte* record = expected.data() + block * block_stride + head * head_stride;
      scalar::EncodeRecord(shape, rows, turn, {}, record);
      std::vector<float> back(shape.rows * shape.dims);
      scalar::DecodeRecord(shape, record, back.data());
      for (size_t row = 0; row < shape.rows; ++row) {
        std::copy_n(&back[row * shape.dims], shape.dims,
                    &floats[(block * shape.rows + row) * row_elements + head * shape.dims]);
      }
    }
  }
  ASSERT_EQ(got.Read(), expected) << "bytes of records, also between them";

  for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
    const size_t bytes = row_elements * ElementBytes(type);
    const Array rows(std::vector<std::byte>(slots * bytes, std::byte{0x33}),
                     shape.rows == 32 ? ElementBytes(type) : 0);
    RecordDecoding decoding = {.shape = shape, .kv_heads = it.heads, .blocks = blocks};
    decoding.from = {got.bytes(), block_stride, head_stride};
    decoding.counts = counts.data();
    decoding.type = type;
    decoding.to = {.base = rows.bytes(), .stride = bytes};
    ASSERT_TRUE(Execute(decoding).ok());
    std::vector<std::byte> want(slots * bytes, std::byte{0x33});
    for (size_t slot = 0; slot < slots; ++slot) {
      for (size_t i = 0; slot % shape.rows < filled[slot / shape.rows] && i < row_elements; ++i) {
        StoreElement(type, &want[slot * bytes], i, floats[slot * row_elements + i]);
      }
    }
    ASSERT_EQ(rows.Read(), want);
  }
}

TEST_F(IntRecordsTest, BytesAreThoseOfThePlainCode) {
  std::mt19937 random(8);
  for (const Codec codec : {Codec::kInt8, Codec::kInt4}) {
    for (const RecordPlane plane : {RecordPlane::kKey, RecordPlane::kValue}) {
      for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
        for (const uint32_t rows : {32U, 64U}) {
          for (const uint32_t dims : {8U, 64U, 96U, 128U, 256U}) {
            Case it = {{codec, plane, type, rows, dims}, dims == 128 ? 8U : 3U};
            const uint32_t kind = (dims / 8 + rows / 32) % 4;
            SCOPED_TRACE(testing::Message()
                         << "codec " << int(codec) << " plane " << int(plane) << " type "
                         << int(type) << " rows " << rows << " dims " << dims << " kind " << kind);
            ASSERT_NO_FATAL_FAILURE(Compare(it, kind, random));
            it.turns = true;
            it.rotated_dims = dims == 96 ? 32 : dims;
            it.pairing = rows == 32 ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
            ASSERT_NO_FATAL_FAILURE(Compare(it, kind, random));
          }
        }
      }
    }
  }
}

TEST_F(IntRecordsTest, ArgumentsOutOfBoundsAreNamed) {
  alignas(16) std::byte some[16];
  RecordEncoding encoding = {.shape = {.codec = Codec::kInt8}, .kv_heads = 1, .blocks = 1};
  EXPECT_EQ(CheckRecordEncoding(encoding).message(), "a pointer is null: from");
  encoding.from.base = some;
  EXPECT_EQ(CheckRecordEncoding(encoding).message(), "a pointer is null: records");
  encoding.to = {some + 1, 0, RecordBytes(encoding.shape)};
  EXPECT_EQ(CheckRecordEncoding(encoding).message(), "records are not aligned: multiple_of=4");
  encoding.to.base = some;
  encoding.to.head_stride -= 4;
  EXPECT_EQ(CheckRecordEncoding(encoding).message(),
            "head stride of records out of bounds: head_stride=4348 min=4352 multiple_of=4");
  encoding.shape.codec = Codec::kTokenMixed;
  EXPECT_EQ(CheckRecordEncoding(encoding).message(),
            "codec of a record is neither int8 nor int4: codec=3");
  RecordDecoding decoding = {.shape = {.codec = Codec::kInt4, .dims = 12}, .blocks = 1};
  EXPECT_EQ(CheckRecordDecoding(decoding).message(),
            "dims of a record out of bounds: dims=12 min=8 max=256 multiple_of=8");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
