//! The descriptions in the repository, and real masks.

use super::*;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../configs/datasets")
        .join(name)
}

/// Files in the layout of an example: its name, a split, an image and its mask.
const LAYOUTS: [[&str; 4]; 16] = [
    ["kvasir-seg", "all", "images/cju0.jpg", "masks/cju0.jpg"],
    [
        "isic2018",
        "train",
        "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png",
    ],
    [
        "isic2018",
        "test",
        "ISIC2018_Task1-2_Test_Input/ISIC_0012169.jpg",
        "ISIC2018_Task1_Test_GroundTruth/ISIC_0012169_segmentation.png",
    ],
    [
        "cvc-clinicdb",
        "all",
        "Original/1.tif",
        "Ground Truth/1.tif",
    ],
    [
        "cvc-clinicdb",
        "all",
        "Original/1.png",
        "Ground Truth/1.png",
    ],
    [
        "busi",
        "all",
        "benign/benign (1).png",
        "benign/benign (1)_mask.png",
    ],
    [
        "busi",
        "malignant",
        "malignant/malignant (2).png",
        "malignant/malignant (2)_mask.png",
    ],
    ["btmri", "all", "images/1.png", "masks/1.png"],
    [
        "btmri",
        "train",
        "Train_Folder/img/1.jpg",
        "Train_Folder/label/1.png",
    ],
    [
        "btmri",
        "val",
        "Val_Folder/img/1.png",
        "Val_Folder/label/1.png",
    ],
    [
        "btmri",
        "test",
        "Test_Folder/img/1.png",
        "Test_Folder/label/1.png",
    ],
    [
        "eus",
        "train",
        "Train_Folder/img/C01_V1_0164.png",
        "Train_Folder/label/C01_V1_0164.png",
    ],
    [
        "eus",
        "val",
        "Val_Folder/img/H01_V1_0001.png",
        "Val_Folder/label/H01_V1_0001.png",
    ],
    [
        "eus",
        "test",
        "Test_Folder/img/C02_V1_0001.png",
        "Test_Folder/label/C02_V1_0001.png",
    ],
    [
        "qata-cov19",
        "train",
        "Train Set/Images/covid_1.png",
        "Train Set/Ground-truths/mask_covid_1.png",
    ],
    [
        "qata-cov19",
        "test",
        "Test Set/Images/covid_2.png",
        "Test Set/Ground-truths/mask_covid_2.png",
    ],
];

/// The layouts are those that the first lines of the examples name.
#[test]
fn the_example_descriptions_read_their_layouts() {
    for [toml, split, image_file, mask] in LAYOUTS {
        let folder = tempfile::tempdir().unwrap();
        for (file, value) in [(image_file, 77), (mask, 255)] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(8, 8, Luma([value]))
                .save(path)
                .unwrap();
        }
        let toml = example(&format!("{toml}.toml"));
        let dataset = open(toml.to_str().unwrap(), folder.path(), split).unwrap();
        assert_eq!(dataset.len(), 1, "{}", toml.display());
        assert!(dataset.items[0].labels.ends_with(mask));
        assert_eq!(dataset.label_rule, LabelRule::binary(128));
        assert_eq!((dataset.classes.len(), dataset.metric), (2, Metric::Dice));
        assert_eq!(dataset.classes.unseen, [1]);
        assert!(
            dataset
                .load(0)
                .unwrap()
                .labels
                .labels()
                .iter()
                .all(|label| *label == 1)
        );
    }
}

#[test]
fn the_template_is_a_valid_description() {
    let toml = example("folder-template.toml");
    let folder = tempfile::tempdir().unwrap();
    let dataset = list(&Selection {
        dataset: toml.to_str().unwrap(),
        root: folder.path(),
        split: "train",
        classes: None,
        unseen: None,
    })
    .unwrap();
    assert_eq!(
        dataset.items[1].image,
        folder.path().join("images/room-02.jpg")
    );
    assert_eq!(dataset.label_rule.kind, LabelKind::Identity);
    assert_eq!(dataset.classes.unseen, [3]);
}

/// Expected counts by Pillow 13.0.0: `(np.array(Image.open(path).convert("L")) >= 128).sum()`.
#[test]
fn real_kvasir_masks_have_the_counts_of_pillow() {
    let Some(root) = shared_data("kvasir_sample/Kvasir-SEG") else {
        return;
    };
    let dataset = open(example("kvasir-seg.toml").to_str().unwrap(), &root, "all").unwrap();
    let polyp: BTreeMap<String, usize> = (0..dataset.len())
        .map(|index| {
            let sample = dataset.load(index).unwrap();
            let bright = sample.labels.labels().iter().filter(|label| **label == 1);
            (sample.id, bright.count())
        })
        .collect();
    let expected = [
        ("cju0qkwl35piu0993l0dewei2", 93_043),
        ("cju0qoxqj9q6s0835b43399p4", 390_295),
        ("cju0qx73cjw570799j4n5cjze", 104_400),
        ("cju0roawvklrq0799vmjorwfv", 35_632),
        ("cju0rx1idathl0835detmsp84", 23_706),
    ];
    assert_eq!(
        polyp,
        expected.map(|(id, count)| (id.to_owned(), count)).into()
    );
}
