// The bytes of the shared-memory layout and of some messages. A failure here means that clients and
// daemons of before can no longer talk to this one: raise shm::kAbiVersion, or take the change
// back.
#include "proto/shm/layout.h"

#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <gtest/gtest.h>

#include "kvasir/v1/kv_cache.pb.h"
#include "proto/shm/layout_hash.h"

#include <fmt/format.h>

namespace kvasir::shm {
namespace {

static_assert(std::endian::native == std::endian::little);

std::string Hex(const void* data, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) {
    text += fmt::format("{:02x}", static_cast<const unsigned char*>(data)[i]);
    if (i % 8 == 7 && i + 1 < bytes) text += ' ';
  }
  return text;
}

template <typename Struct>
std::string HexOf(const Struct& value) {
  return Hex(&value, sizeof(value));
}

TEST(LayoutTest, TextAndHashAreTheGoldenOnes) {
  std::ifstream file(KVASIR_LAYOUT_GOLDEN);
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(LayoutText(), golden.str());
  EXPECT_EQ(LayoutHash(), 10268794517025339736ULL);
}

TEST(LayoutTest, DaemonHeader) {
  DaemonHeader header{};
  header.magic = kDaemonMagic;
  header.abi = 2;
  header.header_bytes = 4096;
  header.segment_bytes = 0x1122334455667788;
  header.boot_epoch = 2;
  header.layout_hash = 3;
  header.session_id = 4;
  header.seq_max = 5;
  header.seq_off = 6;
  header.arena_off = 7;
  header.arena_bytes = 8;
  header.e_desk_off = 9;
  header.e_segment_bytes = 10;
  header.session_state.store(2);
  header.end_reason.store(1);
  header.wanted_back.store(11);
  std::string zeros;
  for (int i = 0; i < 6; ++i) zeros += " 0000000000000000";
  EXPECT_EQ(HexOf(header),
            "4b56535f53484d31 0200000000100000 8877665544332211 0200000000000000 "
            "0300000000000000 0400000005000000 0600000000000000 0700000000000000 "
            "0800000000000000 0900000000000000 0a00000000000000 0000000000000000 "
            "0000000000000000 0000000000000000 0000000000000000 0000000000000000 "
            "0200000001000000 0b00000000000000" +
                zeros);
}

TEST(LayoutTest, BoardDeskAndTable) {
  SeqBoard board{};
  board.published.store(1);
  board.granted.store(2);
  board.uid.store(3);
  board.state.store(1);
  board.slots_per_block = 16;
  board.lanes = 4;
  board.dir_off = 5;
  board.dir_cap = 6;
  board.low_water = 7;
  board.consumed = 8;
  EXPECT_EQ(HexOf(board).substr(0, 135),
            "0100000000000000 0200000000000000 0300000001000000 1000000004000000 "
            "0500000000000000 0600000007000000 0800000000000000 0000000000000000");
  SeqDesk desk{};
  desk.rows.store(1);
  desk.adopted.store(2);
  desk.uid.store(3);
  EXPECT_EQ(HexOf(desk).substr(0, 50), "0100000000000000 0200000000000000 0300000000000000");
  const VersionDesc desc{1, 2, 3, 4, 5, 6, {}};
  EXPECT_EQ(HexOf(desc).substr(0, 84),
            "0100000000000000 0200000000000000 0300000000000000 0400000000000000 "
            "0500000006000000");
  const LaneSpan span{1, 2, 3, 4, 5, 6, 7, 8, {}};
  EXPECT_EQ(HexOf(span).substr(0, 118),
            "0100000000000000 0200000000000000 0300000004000000 0500000000000000 "
            "0600000000000000 0700000000000000 0800000000000000");
  const RunEntry run{1, 2, 3, 4, 5, 6, 7, 8, -9, 10, 11, {}};
  EXPECT_EQ(HexOf(run).substr(0, 118),
            "0100000002000000 0300000000000000 0400000005000000 0600000007000800 "
            "f7ffffffffffffff 0a00000000000000 0b00000000000000");
  const RecentRef ref{1, 2, 3};
  EXPECT_EQ(HexOf(ref), "0100000002000000 0300000000000000");
  EngineHeader engine{};
  engine.magic = kEngineMagic;
  EXPECT_EQ(HexOf(engine).substr(0, 16), "4b56535f454e4731");
}

TEST(LayoutTest, Messages) {
  const Hello hello{kHelloMagic, 1, 2, 3, 0};
  EXPECT_EQ(HexOf(hello), "4b565f53484c4f31 0100000002000000 0300000000000000");
  Welcome welcome{2, 1, 3, 4, 5, {}, 6, 0};
  for (uint8_t i = 0; i < 16; ++i) welcome.token[i] = static_cast<uint8_t>(0xA0 + i);
  EXPECT_EQ(HexOf(welcome),
            "0200000001000000 0300000000000000 0400000000000000 0500000000000000 "
            "a0a1a2a3a4a5a6a7 a8a9aaabacadaeaf 0600000000000000");
  Refusal refusal{3, -1, 1, 2, {}};
  std::memcpy(refusal.text, "no", 2);
  EXPECT_EQ(HexOf(refusal).substr(0, 50), "03000000ffffffff 0100000002000000 6e6f000000000000");
  const ExtentNotice notice{4, 2, 3, 1, 4096, 9};
  EXPECT_EQ(HexOf(notice), "0400000002000000 0300000001000000 0010000000000000 0900000000000000");
  DeviceExtentNotice device{5, 1, 3, 1, 4096, 9, 65536, 0x200000, 32768, 2048, 2, 0, {}};
  std::memcpy(device.device_uuid, "GPU-8f3a", 8);
  std::string zeros;
  for (int i = 0; i < 5; ++i) zeros += " 0000000000000000";
  EXPECT_EQ(HexOf(device),
            "0500000001000000 0300000001000000 0010000000000000 0900000000000000 "
            "0000010000000000 0000200000000000 0080000000000000 0008000000000000 "
            "0200000000000000 4750552d38663361" +
                zeros);
}

// The wire form of messages: numbers and types of fields. Protocol buffers keep the order of
// fields.
std::string Wire(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    EXPECT_TRUE(message.SerializeToCodedStream(&coded));
  }
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

TEST(ProtoTest, GoldenBytes) {
  v1::ModelSpec spec;
  spec.set_name("m");
  spec.set_dtype(v1::DATA_TYPE_BF16);
  v1::LayerSpec* layer = spec.add_layers();
  layer->set_kv_heads(2);
  layer->set_k_head_dim(16);
  layer->set_v_head_dim(8);
  layer->set_attention(v1::ATTENTION_KIND_SLIDING_WINDOW);
  layer->set_sliding_window(4);
  spec.mutable_rope()->set_pairing(v1::RopeSpec::PAIRING_HALF_SPLIT);
  spec.mutable_rope()->set_theta(2.0);
  spec.mutable_rope()->set_rotated_dims(6);
  spec.add_separator_token_ids(1);
  spec.set_vocabulary_size(100);
  spec.set_slots_per_block(16);
  spec.set_weights_digest("d");
  spec.add_adapter_digests("a");
  EXPECT_EQ(Wire(spec),
            "0a016d"                    // name
            "1002"                      // dtype
            "1a0a08021010180820022804"  // layers
            "220d0802110000000000000040"
            "1806"      // rope
            "2a0101"    // separator_token_ids, packed
            "3064"      // vocabulary_size
            "3810"      // slots_per_block
            "420164"    // weights_digest
            "4a0161");  // adapter_digests

  v1::SyncRequest sync;
  v1::SyncNeed* need = sync.add_needs();
  need->set_sequence(1);
  need->set_uid(2);
  need->set_granted_rows(3);
  need->set_table_row(4);
  need->set_has_table_row(true);
  EXPECT_EQ(Wire(sync), "0a0a08011002180320042801");

  v1::SyncResult result;
  result.set_code(8);
  result.set_message("x");
  result.set_granted_rows(1);
  result.set_published_version(2);
  result.set_retry_ms(100);
  EXPECT_EQ(Wire(result),
            "08081201781801200228"
            "64");

  v1::OpenSequenceRequest open;
  open.set_model_id(1);
  open.set_retention("f");
  open.set_prompt_rows(2);
  open.set_max_rows(3);
  open.set_label("l");
  EXPECT_EQ(Wire(open),
            "08011201661802200"
            "32a016c");
  open.Clear();
  open.set_snapshot_id("s");
  EXPECT_EQ(Wire(open), "3a0173");

  v1::OpenSequenceResponse opened;
  opened.set_rows(1);
  EXPECT_EQ(Wire(opened), "7801");

  v1::SaveSequenceRequest save;
  save.set_sequence(1);
  save.set_uid(2);
  EXPECT_EQ(Wire(save), "08011002");
  v1::SaveSequenceResponse saved;
  saved.set_boot_epoch(1);
  saved.set_snapshot_id("s");
  saved.set_rows(2);
  saved.set_held_bytes(3);
  EXPECT_EQ(Wire(saved), "080112017318022003");

  open.Clear();
  open.set_lease_id("l");
  EXPECT_EQ(Wire(open), "5a016c");
  v1::LeasePrefixRequest lease;
  lease.mutable_prefix()->add_tokens(5);
  lease.add_members()->set_model_fingerprint("m");
  lease.mutable_members(0)->set_retention("f");
  lease.mutable_members(0)->set_least_quality(v1::QUALITY_CLASS_QUANTISED);
  lease.mutable_members(0)->set_reads_records(true);
  lease.set_prompt_rows(2);
  lease.set_ttl_ms(3);
  EXPECT_EQ(Wire(lease),
            "0a060a0405000000"
            "120a0a016d12016618022001"
            "18022003");
  v1::LeasePrefixResponse leased;
  leased.set_boot_epoch(1);
  leased.set_lease_id("l");
  leased.set_rows(2);
  leased.add_forms()->set_retention("f");
  leased.mutable_forms(0)->set_quality(v1::QUALITY_CLASS_FULL);
  leased.mutable_forms(0)->set_is_public(true);
  leased.set_ttl_ms(3);
  EXPECT_EQ(Wire(leased),
            "080112016c1802"
            "22070a016610031801"
            "2803");
  v1::ReleaseLeaseRequest release;
  release.set_lease_id("l");
  EXPECT_EQ(Wire(release), "0a016c");

  v1::DropSnapshotRequest drop;
  drop.set_snapshot_id("s");
  EXPECT_EQ(Wire(drop), "0a0173");
}

}  // namespace
}  // namespace kvasir::shm
